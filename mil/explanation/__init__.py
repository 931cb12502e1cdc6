"""Why a model says what it says, tile by tile."""
