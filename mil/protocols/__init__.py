"""Published studies as data: what they did, what they printed, and the same done on one's own cohort.

One TOML file a study. Every setting in it is either stated by the source or chosen here, and says which.
"""
