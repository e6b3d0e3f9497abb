"""Films as training batches: the data set, augmentation, and how fast both are."""
