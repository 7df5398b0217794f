"""Figures of a model's answers: the logit lens, interventions, experts' effects."""
