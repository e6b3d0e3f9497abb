"""A trace rewritten without tracing again: recomputation, accumulation, another batch."""
