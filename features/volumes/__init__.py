"""Volumes of CT and MRI: reading series, one grid for all modalities, and films of their slices."""
