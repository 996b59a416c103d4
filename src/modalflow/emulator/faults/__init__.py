"""Faults on purpose: what the local control plane does wrong because it was told to, the same each time for one seed.

docs/faults.md is the user's page.
"""
