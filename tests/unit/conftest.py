"""Settings of all unit tests."""

from __future__ import annotations

from hypothesis import settings

# On a loaded machine any example may take longer than hypothesis' 200 ms.
settings.register_profile("loaded machine", deadline=None)
settings.load_profile("loaded machine")
