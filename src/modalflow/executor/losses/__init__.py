"""Losses for which the task has no fault: queued again by the executor, without using a retry of the task."""
