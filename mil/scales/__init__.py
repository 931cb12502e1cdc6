"""One cohort at several scales."""
