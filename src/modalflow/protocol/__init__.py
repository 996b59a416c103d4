"""What the executor and the worker exchange: versioned, plain data."""
