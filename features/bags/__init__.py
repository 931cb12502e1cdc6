"""Bags on disk: our own layout, the store, and the layouts of other tools."""
