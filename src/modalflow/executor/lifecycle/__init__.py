"""The life of a function call, from its submission to the report of its outcome."""
