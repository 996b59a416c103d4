"""The executor's reports: metrics, status, log lines, and why work waits."""
