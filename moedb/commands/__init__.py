"""The commands, a file for each subject; imports that cost time are inside them."""
