"""What the executor asks of Modal: the only place of the executor that calls the SDK."""
