"""L-OBS's experiments as data: lists of Spec cells, which lobs.experiments gathers."""
