"""How well risks order the cases by the time of their event."""
