"""One module per verb, each a thin hand from options to a call. Only here are errors printed."""
