"""The life of a call, from its submission to the report of its outcome."""
