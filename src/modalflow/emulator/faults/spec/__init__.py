"""How a fault is written: kinds, options and values."""
