"""Measures of a model's answers: through the logit lens, by expert, under interventions."""
