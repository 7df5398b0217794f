"""The commands that run models: captures, interventions, trainings."""
