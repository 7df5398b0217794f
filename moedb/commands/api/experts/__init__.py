"""What commands about experts do, for scripts and notebooks."""
