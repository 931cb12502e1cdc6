"""Regressions on clinical columns: logistic, Cox, and nomograms."""
