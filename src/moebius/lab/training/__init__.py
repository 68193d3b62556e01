"""Training: the objective, the optimizer, the loop and its checkpoints."""
