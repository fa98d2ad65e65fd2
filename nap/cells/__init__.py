"""NAP's experiments as data: lists of Spec cells, which nap.experiments gathers."""
