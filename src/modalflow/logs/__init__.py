"""Task logs on the logs Volume, as both sides see them."""
