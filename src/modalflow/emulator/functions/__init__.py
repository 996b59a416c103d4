"""Functions and classes: definitions, options, parameters."""
