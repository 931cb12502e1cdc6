"""Files: atomic writing, checksums, unpacking."""
