"""Learning from one small forward pass where the values of every block are."""
