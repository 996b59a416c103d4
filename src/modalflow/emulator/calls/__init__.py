"""Function calls and their inputs and outputs."""
