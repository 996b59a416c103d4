"""``modalflow profile …``."""
