"""Training jobs of Hugging Face configurations: `hf:NAME` on the command line."""
