"""What of examples is shown one by one: their tokens with their decisions, and images."""
