"""What a trained network finds on films, and how good that is."""
