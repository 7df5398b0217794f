"""What a store holds, and the words for it: tables, arrays, manifests, interventions, formats.

Data only, each subject described once: writers, views, ``moedb schema`` and the generated pages
are all made from it. A column that is added here is one that every writer has to give; a change
here is a change of the format.
"""
