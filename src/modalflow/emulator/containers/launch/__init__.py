"""Starting the process of a container: arguments, files, limits, and hints about steps that were not executed."""
