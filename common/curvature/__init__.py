"""Curvature: gradient rows, diagonals, Kronecker factors, inverses, and the labels they are taken
with. May import nets, data and what is below.
"""
