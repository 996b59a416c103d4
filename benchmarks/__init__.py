"""What the parts of a benchmark that are processes of their own agree on."""

#: The environment variable with the UDP port of this machine at which a benchmark hears of what it times.
STOPWATCH_PORT = "MODALFLOW_BENCH_PORT"
