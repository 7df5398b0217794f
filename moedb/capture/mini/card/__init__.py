"""The model card of the embedded model: what is measured for it, and the text."""
