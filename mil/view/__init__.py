"""A finished run in the browser: slides at any zoom, with what a model says of each tile."""
