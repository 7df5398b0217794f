"""What taking labelled experts out does, where their labels fit and elsewhere.

``groups`` reads the effects and draws documents again, ``by_expert`` and ``counts`` are the
analyses.
"""
