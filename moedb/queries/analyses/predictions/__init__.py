"""Measures of a model's answers: through the logit lens, expert by expert, and under interventions."""
