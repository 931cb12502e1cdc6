"""A finished run in the browser: slides at any zoom, with each tile's scores."""
