"""``modalflow doctor``: one module for each side that can be wrong."""
