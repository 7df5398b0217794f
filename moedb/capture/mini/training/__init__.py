"""Training the embedded model: the loop, its optimizer, its checkpoints, its progress."""
