"""k-sparse probes, which ask whether a few neurons of an expert tell a concept.

``settings`` is what is asked, ``concepts`` which tokens it is asked about, ``splitting`` which of
them a probe is fitted, chosen and scored on, ``seeing`` which of them a candidate sees,
``neurons`` what it sees of them, ``fitting`` and ``scoring`` the probe itself, and ``running`` goes
through layers and adds the scores to the run.
"""
