"""Films and landmarks: reading 'Aariz, caching, augmenting, targets, network, loss, decoding, metrics."""
