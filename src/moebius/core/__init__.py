"""What travels through a mixture and what watches it: routings, the context of rows, stacks of equal experts."""
