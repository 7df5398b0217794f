"""The Zarr arrays of a run: what their metadata may say, and making, writing and opening them."""
