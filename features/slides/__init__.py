"""Whole-slide images: opening them, and reading squares at a stated scale."""
