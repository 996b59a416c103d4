"""Messages between executor and worker: versioned, plain data."""
