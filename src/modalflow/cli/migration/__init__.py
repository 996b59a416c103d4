"""The command for moving from another executor."""
