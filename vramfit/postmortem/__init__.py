"""Why memory ran out: recordings explained, a report at an OOM, and a watch for memory that grows."""
