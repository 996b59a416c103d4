"""Containers: which one runs which input, what they may have, how they begin and end."""
