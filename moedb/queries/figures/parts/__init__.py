"""What figures are made of: a figure of the right size, heat maps, axes, text that fits."""
