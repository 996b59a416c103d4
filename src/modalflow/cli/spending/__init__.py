"""The commands about money besides `modalflow cost`."""
