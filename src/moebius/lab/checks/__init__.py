"""Checks of plain values: what a component takes, and what is wrong with a value, in words."""
