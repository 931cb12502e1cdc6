"""Judging predictions of survival."""
