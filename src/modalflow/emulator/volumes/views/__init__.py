"""Views: a Volume's files as a container sees them."""
