"""From a task's request to the Function that runs it, and the queue in front of Modal."""
