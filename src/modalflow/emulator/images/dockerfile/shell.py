"""Split a ``RUN`` line as a shell would, if that is possible without running one.

Owns the grammar of simple commands and of lists of them. Text with a meaning only to a shell raises ``NeedsShell``.
Text refused by every shell raises ``ShellSyntaxError``. Nothing is executed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

#: The special characters of a shell at the end of an unquoted word: lists, pipes, redirections, subshells.
_OPERATORS = frozenset(";&|<>()\n")

_VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})")

#: An assignment, alone or before a command.
ASSIGNMENT = re.compile(r"(?P<name>[A-Za-z_]\w*)=(?P<value>.*)", re.ASCII | re.DOTALL)

#: Variables set by a shell in any image, so they are not empty if unknown.
_SET_BY_SHELLS = frozenset(
    {"HOME", "HOSTNAME", "IFS", "LINENO", "OLDPWD", "PATH", "PPID", "PWD", "RANDOM", "SECONDS", "SHELL", "UID", "USER"}
)

#: First words of compound commands: only a shell can read the rest.
_COMPOUND = frozenset({"if", "then", "for", "while", "until", "case", "do", "select", "function", "{", "!", "[["})


class NeedsShell(ValueError):
    """The error for words with a meaning only to a shell. The text names them."""


class ShellSyntaxError(ValueError):
    """The error for a line with a syntax error in every shell. The text names the error."""


@dataclass(frozen=True)
class Part:
    """One command of a list."""

    text: str
    joint: str
    """The operator before it: ``&&`` or ``;``, empty for the first."""


def parts(text: str) -> list[Part]:
    """Split a list of commands at ``&&``, ``;`` and line ends.

    NeedsShell for other lists, such as ``a || b`` and ``( a )``: their parts cannot be evaluated one by one.
    """
    found: list[Part] = []
    pieces: list[str] = []
    begin, at, joint, is_word_start = 0, 0, "", True
    while at < len(text):
        char = text[at]
        if char == "\\":
            at, is_word_start = at + 2, False
        elif char in "'\"":
            at, is_word_start = _closing(text, at), False
        elif char in "$`" and (char == "`" or text[at + 1 : at + 2] == "("):
            at, is_word_start = _substituted(text, at), False
        elif char == "#" and is_word_start:
            # A comment up to the end of its line.
            end = text.find("\n", at)
            end = len(text) if end < 0 else end
            pieces.append(text[begin:at])
            begin = at = end
        elif (operator := _operator(text, at)) is not None:
            _add(found, "".join((*pieces, text[begin:at])), joint, operator)
            pieces.clear()
            joint = "&&" if operator == "&&" else ";"
            at += len(operator)
            begin, is_word_start = at, True
            while joint == "&&" and text[begin : begin + 1] in ("\n", " ", "\t"):
                begin = at = begin + 1
        else:
            at, is_word_start = at + 1, char in " \t"
    _add(found, "".join((*pieces, text[begin:])), joint, "")
    return found


def _add(found: list[Part], text: str, joint: str, operator: str) -> None:
    text = text.strip()
    if text:
        if text.split()[0] in _COMPOUND:
            raise NeedsShell(f"{text.split()[0]!r} needs a shell")
        found.append(Part(text, joint if found else ""))
    elif operator in ("&&", ";") or (joint == "&&" and not operator):
        raise ShellSyntaxError(f"there is no command {'before' if operator else 'after'} {operator or joint!r}")


def _operator(text: str, at: int) -> str | None:
    """Return the operator between two commands at this place, if there is one."""
    pair, char = text[at : at + 2], text[at]
    if pair == "&&":
        return "&&"
    if pair in ("||", ";;", ";&") or (char == "&" and ">" not in (text[at - 1 : at], text[at + 1 : at + 2])):
        raise NeedsShell(f"{pair.strip()!r} needs a shell")
    if char in "()":
        raise NeedsShell(f"{char!r} needs a shell")
    if pair == "<<":
        raise NeedsShell("a here-document needs a shell")
    return char if char in ";\n" else None


def _closing(text: str, at: int) -> int:
    """Return the place after the quoted text at this place."""
    quote, start = text[at], at
    at += 1
    while at < len(text) and text[at] != quote:
        if quote == '"' and text[at] == "\\":
            at += 1
        elif quote == '"' and text[at : at + 2] == "$(":
            at = _substituted(text, at) - 1
        at += 1
    if at >= len(text):
        kind = "single" if quote == "'" else "double"
        raise ShellSyntaxError(f"a {kind} quote is not closed, from {text[start : start + 20]!r} on")
    return at + 1


def _substituted(text: str, at: int) -> int:
    """Return the place after the ``$(…)`` or the backticks at this place."""
    if text[at] == "`":
        end = text.find("`", at + 1)
        if end < 0:
            raise ShellSyntaxError("a backtick is not closed")
        return end + 1
    depth, at = 0, at + 1
    while at < len(text):
        if text[at] in "'\"":
            at = _closing(text, at)
            continue
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        at += 1
        if depth == 0:
            return at
    raise ShellSyntaxError("a '$(' is not closed")


def words(text: str, variables: Mapping[str, str]) -> list[str]:
    """Return the words of a command as a shell would pass them on, with ``$NAME`` replaced outside single quotes.

    As in a shell, an unset variable is empty.
    """
    found: list[str] = []
    word: list[str] | None = None
    at = 0
    while at < len(text):
        char = text[at]
        if char in " \t":
            if word is not None:
                found.append("".join(word))
            word, at = None, at + 1
            continue
        if char == "#" and word is None:
            break
        if char == "'":
            end = text.find("'", at + 1)
            if end < 0:
                raise NeedsShell("a single quote is not closed")
            read, at = text[at + 1 : end], end + 1
        elif char == '"':
            read, at = _double_quoted(text, at + 1, variables)
        elif char == "\\":
            read, at = text[at + 1 : at + 2], at + 2
        elif char in _OPERATORS:
            raise NeedsShell(f"{char!r} needs a shell")
        elif char in "$`":
            read, at = _expanded(text, at, variables)
            if not read and word is None:
                # An empty variable outside quotes is not a word.
                continue
            if word is None and text[at : at + 1] in ("", " ", "\t") and not any(c in "*?[" for c in read):
                found += read.split()
                continue
            if any(c in " \t\n*?[" for c in read):
                raise NeedsShell("a variable with several words, or with a pattern, needs a shell")
        elif char in "*?" or (char == "~" and word is None):
            raise NeedsShell(f"a pattern with {char!r} needs a shell")
        else:
            read, at = char, at + 1
        word = [] if word is None else word
        word.append(read)
    if word is not None:
        found.append("".join(word))
    return found


def _double_quoted(text: str, at: int, variables: Mapping[str, str]) -> tuple[str, int]:
    found: list[str] = []
    while at < len(text):
        char = text[at]
        if char == '"':
            return "".join(found), at + 1
        if char == "\\" and text[at + 1 : at + 2] in ("$", "`", '"', "\\"):
            read, at = text[at + 1], at + 2
        elif char in "$`":
            read, at = _expanded(text, at, variables)
        else:
            read, at = char, at + 1
        found.append(read)
    raise NeedsShell("a double quote is not closed")


def _expanded(text: str, at: int, variables: Mapping[str, str]) -> tuple[str, int]:
    match = _VARIABLE.match(text, at)
    if match is None:
        if text[at] == "$" and text[at + 1 : at + 2] in ("", " ", '"'):
            return "$", at + 1
        raise NeedsShell(f"{text[at : at + 2]!r} needs a shell")
    name = match[1] or match[2]
    if name not in variables and name in _SET_BY_SHELLS:
        raise NeedsShell(f"the variable {name} is the shell's")
    return variables.get(name, ""), match.end()
