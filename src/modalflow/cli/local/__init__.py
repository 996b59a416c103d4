"""The ``modalflow local`` commands."""
