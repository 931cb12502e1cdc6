"""Networks that embed a tile."""
