"""What the tries of a task instance ran out of: a message from one executor to the one that submits the next try."""

from __future__ import annotations

import json
from dataclasses import dataclass

from modalflow.errors import MalformedMessageError
from modalflow.protocol.messages import plain_fields
from modalflow.support.described import describe
from modalflow.support.text import LINE, from_json, one_line


@dataclass(frozen=True)
class Shortage:
    """The most with which a try of a task instance ended too early; 0 if none did."""

    memory_mib: float = 0.0
    """MiB: the limit, or the request if there was no limit."""
    timeout: float = 0.0
    """Seconds."""

    def __or__(self, other: Shortage) -> Shortage:
        return Shortage(max(self.memory_mib, other.memory_mib), max(self.timeout, other.timeout))

    def to_json(self) -> str:
        return json.dumps(vars(self))

    @classmethod
    def from_json(cls, text: object) -> Shortage:
        """Read the result of ``to_json``. Raises MalformedMessageError for anything else."""
        try:
            return cls(**plain_fields(cls, from_json(str(text))))
        except (TypeError, ValueError) as error:
            raise MalformedMessageError(f"A shortage is malformed: {one_line(describe(error), LINE)}") from error


NO_SHORTAGE = Shortage()
