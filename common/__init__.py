"""What the four papers share: layers, data, curvature, selection, costs, records. Knows no paper's
algorithm.
"""
