"""What figures are made of: a figure of the right size, its rows, heat maps, axes, text."""
