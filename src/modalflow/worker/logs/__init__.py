"""The log of a function call: written to files of limited size, published by commits of the logs Volume."""
