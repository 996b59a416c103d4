"""Apps and their versions."""
