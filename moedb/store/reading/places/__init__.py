"""Where a run's committed files are: in a folder, or on object storage.

``place`` says what readers ask, ``local`` answers from the disk. ``remote_store`` lists a store
that is elsewhere and brings its manifests, once; ``remote_place`` answers from that list. Only
``file_systems`` imports what reaches object storage, only ``remote_arrays`` zarr.
"""
