"""A capture from its plan to its last committed unit.

Settings and examples come in; ``plan`` decides everything before anything runs (which arrays,
which units, how many bytes), ``running`` runs the units that are missing, ``assembly`` puts their
batches together and ``background_writer`` commits them while the model goes on. The same for
every job and for interventions.
"""
