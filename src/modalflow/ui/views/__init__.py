"""The answers, made from what has been read and what a user may see. No I/O."""
