"""The jobs of `reach.py`, by family, each as the people who train it write it; all float32 and small."""
