"""The programs of the demo, and the guard for their end."""
