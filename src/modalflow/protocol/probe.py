"""The question of `modalflow doctor` to a container: a token to try, and options of Airflow to report on.

It travels as the workload of a probe, as JSON. Older workers read the token and ignore the rest. An answer holds no
value of a secret option, only a digest with the question's own salt.
"""

from __future__ import annotations

import hmac
import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

from modalflow.errors import MalformedMessageError
from modalflow.support.described import describe
from modalflow.support.text import from_json, one_line

#: Characters of a digest: 128 bits.
_DIGEST_LENGTH = 32
#: Characters of a shown value.
_SHOWN = 200
#: Stands for the value of a secret option.
HIDDEN = "***"
_USER = re.compile(r"//[^/\s@]*@")


@dataclass(frozen=True)
class WantedOption:
    """An option of Airflow for a container's report."""

    section: str
    option: str
    secret: bool = False
    """Whether the container answers with a digest alone."""


@dataclass(frozen=True)
class Question:
    """The content of a probe."""

    id: str = ""
    """The task instance of the token. It does not exist."""
    token: str = field(default="", repr=False)
    """Empty if this machine cannot sign one."""
    salt: str = field(default_factory=lambda: secrets.token_hex(16))
    options: Sequence[WantedOption] = ()

    def to_json(self) -> str:
        options = [[wanted.section, wanted.option, wanted.secret] for wanted in self.options]
        return json.dumps({"id": self.id, "token": self.token, "salt": self.salt, "options": options})

    @classmethod
    def from_json(cls, text: str) -> Question:
        """Read the result of ``to_json``, also an older doctor's. Raises MalformedMessageError for anything else."""
        try:
            wire = from_json(text)
            options = [WantedOption(str(s), str(o), bool(secret)) for s, o, secret in wire.get("options") or ()]
            return cls(str(wire.get("id") or ""), str(wire.get("token") or ""), str(wire.get("salt") or ""), options)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise MalformedMessageError(f"A probe's question is malformed: {one_line(describe(error))}") from error


def digest(value: str, salt: str) -> str:
    """Return a digest, to compare with a value by its owner."""
    keyed = hmac.new(salt.encode(), value.encode("utf-8", "surrogatepass"), "sha256")
    return keyed.hexdigest()[:_DIGEST_LENGTH]


def shown(value: str, secret: bool) -> str:
    """Return an option's value for display: nothing of a secret one, and no name and password within a URL."""
    return HIDDEN if secret else one_line(_USER.sub("//", value), _SHOWN)
