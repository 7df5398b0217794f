"""What a command can do, as functions for scripts and notebooks: same names, checks and progress.

``plans`` is how commands and functions plan a capture; ``capturing`` runs models, ``mirroring`` has
their units copied meanwhile, ``publishing`` writes tables and figures, ``progress`` says how far
they are. Nothing here knows the commands.
"""
