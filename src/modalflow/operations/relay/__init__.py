"""Relays on this machine: running one, and the checks of `modalflow doctor`."""
