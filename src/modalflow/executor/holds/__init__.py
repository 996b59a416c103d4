"""Calls kept from Modal: by a budget without money, or by a paused profile."""
