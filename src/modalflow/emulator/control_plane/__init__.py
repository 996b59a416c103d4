"""The control plane as a whole: its parts joined, started and ended."""
