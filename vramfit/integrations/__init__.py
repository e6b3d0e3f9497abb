"""vramfit inside other trainers: Hugging Face's Trainer, Lightning, and functions launched by accelerate."""
