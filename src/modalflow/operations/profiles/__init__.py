"""Paused profiles: pause, resume and drain them, for commands and for the UI."""
