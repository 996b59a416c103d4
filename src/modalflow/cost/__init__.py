"""Resources of work and their cost. No I/O and no clock: callers pass everything."""
