"""WoodFisher's experiments as data: lists of Spec cells, which woodfisher.experiments gathers."""
