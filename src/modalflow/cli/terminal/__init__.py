"""Shared parts of commands: options, errors, and the form of output on a terminal."""
