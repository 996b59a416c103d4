"""The configuration: options, and their valid values."""
