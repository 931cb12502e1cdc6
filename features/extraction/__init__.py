"""From slides to a store of bags."""
