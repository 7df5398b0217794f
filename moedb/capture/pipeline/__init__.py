"""A capture from its plan to its last committed unit.

Settings and examples come in; ``plan`` decides everything before anything runs (which arrays,
which units, how many bytes), ``running`` runs a unit, ``assembly`` puts its batches together.
``missing_units`` goes over the units that a run lacks, the same for every job and for
interventions; ``background_writer`` commits them while the model goes on.
"""
