"""The commands about what experts do: concepts, probes, labels."""
