"""Interventions: a captured run's examples again, through a model that is changed on the way."""
