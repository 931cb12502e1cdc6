"""Regressions on columns of the table: logistic, Cox, and the nomogram drawn from them."""
