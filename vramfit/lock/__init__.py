"""What training takes of a card, written down in a file beside the code, and what has grown since."""
