"""A container's root file system: its layers over the host's files, and its Volumes."""
