"""Contours on CT and MRI: a network of neighbouring slices, learnt and judged by patient."""
