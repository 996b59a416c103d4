"""A task on the terminal of its user."""
