"""Judging predictions per case, with intervals that hold at a handful of cases; no torch."""
