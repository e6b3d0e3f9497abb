"""Pure decisions over records: which batch to try next, which plan to choose. Never imports torch."""
