"""Faults on purpose: the local control plane fails as configured, in the same way each time for the same seed.

docs/faults.md is the user's page.
"""
