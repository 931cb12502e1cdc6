"""Answers for new slides: what the model says, what that is worth, and when it does not know."""
