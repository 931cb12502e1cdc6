"""Whether a new slide is like those a model learnt from, and which of them it shows again."""
