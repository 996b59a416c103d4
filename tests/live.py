"""Whether tests talk to the live service, and as whom."""

from __future__ import annotations

import os

LIVE_URL = "https://api.modal.com"


def credentials() -> dict[str, str] | None:
    """The variables of the live service's credentials, None where the environment has none."""
    token_id, token_secret = os.environ.get("MODAL_TOKEN_ID"), os.environ.get("MODAL_TOKEN_SECRET")
    if not (token_id and token_secret) and ":" in os.environ.get("MODAL_TOKEN", ""):
        token_id, _, token_secret = os.environ["MODAL_TOKEN"].partition(":")
    if os.environ.get("MODAL_SERVER_URL", LIVE_URL) != LIVE_URL or not (token_id and token_secret):
        return None
    return {"MODAL_TOKEN_ID": token_id, "MODAL_TOKEN_SECRET": token_secret}


def where() -> str:
    """What a test report says of it."""
    return LIVE_URL if credentials() else "the local control plane (nothing here is validated live)"
