"""The way of a request to Modal: the Function that runs it, and the queue in front of it."""
