"""Training a landmark network on a film set."""
