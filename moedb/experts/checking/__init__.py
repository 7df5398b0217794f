"""Whether a label is true of its expert, by taking the expert out.

``settings`` is what is asked, ``drawing`` which tokens and which controls, ``planning`` puts them
together into ablations, ``running`` has these measured and adds the ``rows`` to the run. Who
measures is given to it: nothing here runs a model.
"""
