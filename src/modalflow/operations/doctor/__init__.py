"""``modalflow doctor``: one module for each side of the installation."""
