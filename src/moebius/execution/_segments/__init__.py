"""Feed-forward experts on rows that are sorted by expert: two ways to compute the same, and when padding pays."""
