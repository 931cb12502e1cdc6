"""A slide at low power: its feature map at 4x, what describes it, and what a segmenter makes of it."""
