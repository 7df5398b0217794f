"""How often intervals hold the truth, of what is made up."""
