"""Evaluation of ordered grades."""
