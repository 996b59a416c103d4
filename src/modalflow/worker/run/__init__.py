"""Running one workload or command in a process of its own."""
