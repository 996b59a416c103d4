"""The ``modalflow`` command: one file per subcommand."""
