"""The execution of work in a process that a zygote has forked for it."""
