"""The age of an answer, and the links in it: common parts of answers."""

from __future__ import annotations

from pydantic import BaseModel


class Freshness(BaseModel):
    """When the data was read from Modal, for all viewers at once."""

    read_at: float = 0.0
    """0 before the first successful read."""
    age: float = 0.0
    """Seconds since then, by the API server's clock."""
    reading: bool = False
    """Whether a read is under way: ask again soon."""
    problem: str = ""
    """Why the newest read failed; the data is then that of ``read_at``, or empty. Empty if it did not fail."""


class Links(BaseModel):
    """Addresses on Modal's dashboard; ``{id}`` stands for an object's id. Empty without a page for it."""

    function_call: str = ""
    container: str = ""
    app: str = ""
