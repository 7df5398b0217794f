"""Where the weights of a model go. Imports nothing, so that commands can name the choices."""

DEVICE_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")
"""Ways in which accelerate spreads layers over the GPUs that there are."""
