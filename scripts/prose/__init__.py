"""Counts the patterns of the style sheet in the project's prose: ``python -m scripts.prose``."""
