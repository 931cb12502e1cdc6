"""How well classes are told apart, and whether probabilities can be believed."""
