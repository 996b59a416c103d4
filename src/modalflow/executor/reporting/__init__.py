"""What the executor reports: metrics, status, log lines, and why work waits."""
