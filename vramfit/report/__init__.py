"""The only rooms that format numbers for people: tables, pages, TensorBoard."""
