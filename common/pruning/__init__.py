"""Brain-surgeon algebra: scores, exact selection, updates, the pruned network, baselines. May
import curvature and what is below.
"""
