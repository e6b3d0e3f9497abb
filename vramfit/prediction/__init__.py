"""What a card would do, said without one: trace, allocator replay, hidden memory, roofline time."""
