"""Recurring kinds of tiles in a cohort, and the classes they go with."""
