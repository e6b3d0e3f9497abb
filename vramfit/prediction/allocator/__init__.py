"""CUDA's caching allocator, replayed: blocks, segments, settings and failures."""
