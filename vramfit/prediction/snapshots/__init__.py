"""Memory snapshots that PyTorch recorded on a card: reading, replaying and comparing them."""
