"""Shared constants of a benchmark's processes."""

#: The environment variable with the UDP port of this machine at which a benchmark hears of what it times.
STOPWATCH_PORT = "MODALFLOW_BENCH_PORT"
