"""An unchanged training script, run on a card that need not be here, or watched on one that is."""
