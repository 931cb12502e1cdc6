"""What the verbs of the command do, from Python: with plain values, and with what was found returned."""
