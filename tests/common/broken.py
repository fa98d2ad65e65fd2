"""A method that spoils its input's copy and then fails."""

from common.pruning.baselines import ScopeOptions


def prune(model, calibration, amount, options: ScopeOptions, generator, masks=None):
    raise RuntimeError("on purpose")
