"""What the worker does for gVisor, the sandbox in which Modal runs containers: the memory of forks costs most there."""
