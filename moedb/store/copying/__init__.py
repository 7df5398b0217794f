"""Copying runs between stores, in folders and on object storage, each file against its hash.

``contents`` says what a run consists of, in the order in which it is written. ``relation`` holds
it against what the destination has of it. ``target`` says what a destination does, ``local_target``
and ``remote_target`` do it, ``runs`` copies, and ``mirror`` does so while a run is captured.
"""
