"""The check of a film set: what is wrong with its films and points, before anything is trained on them."""
