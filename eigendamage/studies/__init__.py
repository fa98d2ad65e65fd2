"""EigenDamage's experiments that are no (prune, fine-tune) cell; `__main__` runs them."""
