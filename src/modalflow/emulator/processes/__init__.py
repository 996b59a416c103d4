"""The processes of containers: the template, its forks and their root file systems."""
