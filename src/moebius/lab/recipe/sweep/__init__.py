"""Sweeps: the values that are tried, the names of the points, and the variants that they become."""
