"""Drawn films with known landmarks, for the demo and the tests."""
