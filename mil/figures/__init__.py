"""Figures that several rooms draw, and how figures are saved."""
