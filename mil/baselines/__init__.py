"""What every head must beat, in the same table over the same folds."""
