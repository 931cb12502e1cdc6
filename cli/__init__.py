"""Where strings become objects: parse, call, print."""
