"""A relay's report: one small text for each relay, in a Dict of their own. A hint for users, some seconds old."""

from __future__ import annotations

import dataclasses
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field

from modalflow.errors import MalformedMessageError
from modalflow.protocol.messages import plain_fields
from modalflow.support.described import describe
from modalflow.support.text import from_json, one_line

#: The prefix of a relay's key in the Dict.
RELAY = "relay/"
#: The key in the Dict with the id of the newest relay key, so that executors notice a rotation.
NEWEST_KEY = "newest-key"

#: Seconds between reports without changes, and those of relays that do not report the number.
SIGN_OF_LIFE, FORMER_SIGN_OF_LIFE = 60.0, 300.0
#: How many reports may be missing until a relay counts as gone.
MISSING = 3


def name_of_relay(pid: int, suffix: str = "") -> str:
    """Return the name of a relay on this machine; without ``suffix``, the beginning of the name."""
    return f"{socket.gethostname()[:40]}-{pid}-{suffix}"


@dataclass(frozen=True)
class RelayReport:
    """One relay as it was at ``published_at``."""

    name: str
    url: str = ""
    """Its Execution API."""
    version: str = ""
    key_id: str = ""
    """Its newest key."""
    started_at: float = 0.0
    published_at: float = 0.0
    in_flight: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    """Event → its count since the start."""
    queue_seconds: float = 0.0
    """The mean time of a request from a container to the relay."""
    api_seconds: float = 0.0
    """The mean time of the API server for a request."""
    interval: float = FORMER_SIGN_OF_LIFE
    """Seconds until its next report at the latest."""

    def is_silent(self, now: float) -> bool:
        """Return whether the report is too old for a living relay."""
        return now - self.published_at > MISSING * self.interval

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: object) -> RelayReport:
        """Read the result of ``to_json``. Raises MalformedMessageError for anything else."""
        try:
            return cls(**plain_fields(cls, from_json(str(text))))
        except (KeyError, TypeError, ValueError) as error:
            raise MalformedMessageError(f"A relay's report is malformed: {one_line(describe(error))}") from error
