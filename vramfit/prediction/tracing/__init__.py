"""One training step on storage-less tensors: what it allocates, computes and frees, and when."""
