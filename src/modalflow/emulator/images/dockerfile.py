"""Reading Dockerfile lines: which commands there are, and the words of one as a shell would see them.

Owns the grammar and no effect: what a command does here is recipes.py's. What only a shell can read raises
``NeedsShell``, whose text says why.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

#: What ends a word outside quotes and means something to a shell: lists, pipes, redirections, subshells.
_OPERATORS = frozenset(";&|<>()\n")

_VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})")
_HEREDOC = re.compile(r"<<-?\s*([\"']?)(\w+)\1")


class NeedsShell(ValueError):
    """The words mean what they mean to a shell only. The text names what it was."""


@dataclass(frozen=True)
class Command:
    """One command, e.g. ``RUN`` and the rest of it; what was continued over several lines is in one."""

    verb: str
    rest: str

    def __str__(self) -> str:
        return f"{self.verb} {self.rest}".rstrip()


def commands(lines: Iterable[str]) -> Iterator[Command]:
    """Yield the commands of Dockerfile lines, of which each may itself be several; comments are left out."""
    pending = iter([line for text in lines for line in text.split("\n")])
    for line in pending:
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        whole = line.strip()
        # A backslash at the end continues a command; the SDK's own ones may have a space after it.
        while whole.endswith("\\"):
            following = next((more for more in pending if not more.lstrip().startswith("#")), "")
            whole = f"{whole[:-1].rstrip()} {following.strip()}"
        verb, _, rest = whole.partition(" ")
        if verb.upper() in ("RUN", "COPY", "ADD"):
            for _, mark in _HEREDOC.findall(rest):
                for more in pending:
                    if more.strip() == mark:
                        break
        yield Command(verb.upper(), rest.strip())


def words(text: str, variables: Mapping[str, str], *, keep_unknown: bool = False) -> list[str]:
    """Return the words of a command as a shell would pass them on, ``$NAME`` replaced outside single quotes.

    A variable that there is none of is nothing, as in a shell, or stays as it is written with ``keep_unknown``.
    """
    found: list[str] = []
    word: str | None = None
    at = 0
    while at < len(text):
        char = text[at]
        if char in " \t":
            if word is not None:
                found.append(word)
            word, at = None, at + 1
            continue
        if char == "#" and word is None:
            break
        if char == "'":
            end = text.find("'", at + 1)
            if end < 0:
                raise NeedsShell("a single quote is not closed")
            word, at = (word or "") + text[at + 1 : end], end + 1
        elif char == '"':
            quoted, at = _double_quoted(text, at + 1, variables, keep_unknown)
            word = (word or "") + quoted
        elif char == "\\":
            word, at = (word or "") + text[at + 1 : at + 2], at + 2
        elif char in _OPERATORS:
            raise NeedsShell(f"{char!r} needs a shell")
        elif char in "$`":
            value, at = _expanded(text, at, variables, keep_unknown)
            word = (word or "") + value
        elif char in "*?":
            raise NeedsShell(f"a pattern with {char!r} needs a shell")
        else:
            word, at = (word or "") + char, at + 1
    if word is not None:
        found.append(word)
    return found


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace ``$NAME`` and ``${NAME}`` of the variables given, others stay as they are."""
    return _VARIABLE.sub(lambda m: variables.get(m[1] or m[2], m[0]), text)


def _double_quoted(text: str, at: int, variables: Mapping[str, str], keep_unknown: bool) -> tuple[str, int]:
    found = ""
    while at < len(text):
        char = text[at]
        if char == '"':
            return found, at + 1
        if char == "\\" and text[at + 1 : at + 2] in ("$", "`", '"', "\\"):
            found, at = found + text[at + 1], at + 2
        elif char in "$`":
            value, at = _expanded(text, at, variables, keep_unknown)
            found += value
        else:
            found, at = found + char, at + 1
    raise NeedsShell("a double quote is not closed")


def _expanded(text: str, at: int, variables: Mapping[str, str], keep_unknown: bool) -> tuple[str, int]:
    match = _VARIABLE.match(text, at)
    if match is None:
        if text[at] == "$" and text[at + 1 : at + 2] in ("", " ", '"'):
            return "$", at + 1
        raise NeedsShell(f"{text[at : at + 2]!r} needs a shell")
    name = match[1] or match[2]
    return variables.get(name, match[0] if keep_unknown else ""), match.end()
