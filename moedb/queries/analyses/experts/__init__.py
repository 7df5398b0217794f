"""What experts write and what they are chosen on, from the stored arrays."""
