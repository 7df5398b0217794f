"""For analyses that take long: how far they are, and answers that are kept on the disk.

``progress`` is told by an analysis which part it is at, and tells whoever wants to show it;
``kept`` reads and writes answers of complete runs in the user's cache folder, outside any store.
"""
