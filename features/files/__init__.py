"""Files written atomically, checked by checksum, read unpacked."""
