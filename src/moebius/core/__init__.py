"""The objects that mixtures pass on and record: routings, the context of rows, stacks of equal experts."""
