"""Tiles of a slide: the grid, quality flags, stain normalisation."""
