"""What a plan has to know of the examples: their sizes, and which tokens the arrays keep."""
