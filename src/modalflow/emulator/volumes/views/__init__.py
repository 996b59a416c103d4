"""What a container sees of a Volume."""
