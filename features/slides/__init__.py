"""Whole-slide images: opening them, and reading them at any mpp."""
