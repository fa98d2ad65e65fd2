"""Experiments of L-OBS that are no (train, prune, fine-tune) cell; `__main__` runs them."""
