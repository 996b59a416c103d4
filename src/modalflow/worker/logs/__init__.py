"""The log of a function call: written in parts, published by commits."""
