"""From a bag to logits: one head a file, all under one contract."""
