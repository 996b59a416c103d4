"""Modal Queues and their partitions."""
