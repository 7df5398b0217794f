"""What experts do: concepts, probes of their neurons, contexts, labels and what these are worth.

Everything is read from a store through ``queries`` and written back to the run as an addition;
nothing here runs a model or knows the commands.
"""
