"""Film sets as they lie on disk: their formats, images, annotations, cache, folds and near-duplicates."""
