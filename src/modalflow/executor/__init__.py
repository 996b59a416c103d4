"""What lives in the scheduler: the executor, and the engine thread that talks to Modal for it."""
