"""Functions that run in an image while it is built: for certain, it has the standard library alone."""
