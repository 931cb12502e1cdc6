"""The demo cohort: synthetic slides of four sarcoma subtypes with known key tiles."""

from features.synthetic.cohort import SUBTYPES, CohortSpec, key_tiles, write_cohort

__all__ = ["SUBTYPES", "CohortSpec", "key_tiles", "write_cohort"]
