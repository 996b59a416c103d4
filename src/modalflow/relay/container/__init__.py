"""The container's side of the relay."""
