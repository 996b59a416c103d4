"""Containers: assignment of inputs, capacity, starts and ends."""
