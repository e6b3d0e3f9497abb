"""Tables, pages and pictures of landmarks."""
