"""Regions of a slide: annotations drawn by a pathologist, and masks of tissue."""
