"""The use of a container by its function calls: recorded for each call, and sampled while a long one runs."""
