"""What may be configured and asked: the options, and the values that they may have."""
