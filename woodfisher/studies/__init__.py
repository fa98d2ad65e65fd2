"""WoodFisher's experiments that are no (prune, fine-tune) cell; `python -m woodfisher.studies`."""
