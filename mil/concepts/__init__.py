"""What recurs among a cohort's tiles, and which class it goes with."""
