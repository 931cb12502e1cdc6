"""The table of the study joined to its bags: cases, outcomes and folds."""
