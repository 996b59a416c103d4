"""What survives: the folder, the journal in it, and objects by name."""
