"""Reading Dockerfile lines and the shell commands in them."""
