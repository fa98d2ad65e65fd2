"""Experiments of NAP that are no (train, prune, fine-tune) cell; `__main__` runs them."""
