"""One job, described once: what is trained, and the one step that trains it."""
