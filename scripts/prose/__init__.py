"""Counts in the project's prose what its style sheet forbids: ``python -m scripts.prose``."""
