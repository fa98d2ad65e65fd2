"""What scipy says of samples: intervals, tests and correlations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

Sample = tuple[float, float, int]  # mean, standard deviation, runs


def p_value(one: Sample, two: Sample) -> float:
    """Student's two-sided p of equal means, equal variances assumed."""
    return float(stats.ttest_ind_from_stats(*one, *two).pvalue)


def paired_p(one: Mapping[int, float], other: Mapping[int, float]) -> float | None:
    """p of Student's two-sided t-test of equal means, paired over the seeds that both have; None
    below two pairs, or where all pairs differ by the same.
    """
    seeds = sorted(set(one.keys()) & set(other.keys()))
    gaps = [one[seed] - other[seed] for seed in seeds]
    if len(gaps) < 2 or np.std(gaps, ddof=1) <= 1e-9:
        return None
    return float(stats.ttest_rel([one[s] for s in seeds], [other[s] for s in seeds]).pvalue)


def spearman(one: Sequence[float], two: Sequence[float]) -> float | None:
    """Rank correlation; None below three values, or where one side is all alike."""
    if len(one) < 3 or np.ptp(one) == 0 or np.ptp(two) == 0:
        return None
    return float(stats.spearmanr(one, two).statistic)
