"""What figures are made of: a figure of the right size, heat maps, axes of layers, text that fits."""
