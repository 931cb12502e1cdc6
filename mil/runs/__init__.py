"""The run folder: what a cross-validation leaves on disk, and how it is read again."""
