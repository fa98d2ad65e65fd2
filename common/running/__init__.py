"""Running cells: the training loop, the gradual loop, the three verbs. May import pruning and what
is below.
"""
