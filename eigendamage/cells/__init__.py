"""EigenDamage's experiments as data: lists of Spec cells, which eigendamage.experiments gathers."""
