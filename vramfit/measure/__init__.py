"""What this card really does: budget, trials in a child process, the search for the batch."""
