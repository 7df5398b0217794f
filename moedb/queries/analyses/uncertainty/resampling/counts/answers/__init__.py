"""What queries give of drawn clusters where counted views do not tell it: worked out row by row."""
