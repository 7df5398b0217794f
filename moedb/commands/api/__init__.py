"""What a command can do, as functions for scripts and notebooks: same names, checks and progress.

``capturing`` runs models, ``publishing`` writes tables and figures, ``progress`` says how far they
are. The commands are made of the same parts; nothing here knows them.
"""
