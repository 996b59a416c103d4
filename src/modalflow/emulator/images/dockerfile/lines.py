"""Dockerfile syntax: instructions, flags, variables and heredocs.

Owns the grammar, as in BuildKit (packages ``dockerfile/parser`` and ``dockerfile/shell``), and no effect. The effect of
an instruction is in recipe.py, and the parsing of a RUN in shell.py. Text refused by Docker raises ``DockerfileError``
with the reason.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

#: Every instruction of a Dockerfile.
INSTRUCTIONS = frozenset(
    {
        "ADD",
        "ARG",
        "CMD",
        "COPY",
        "ENTRYPOINT",
        "ENV",
        "EXPOSE",
        "FROM",
        "HEALTHCHECK",
        "LABEL",
        "MAINTAINER",
        "ONBUILD",
        "RUN",
        "SHELL",
        "STOPSIGNAL",
        "USER",
        "VOLUME",
        "WORKDIR",
    }
)

_CONTINUED = re.compile(r"\\[ \t]*$")
_ESCAPE_DIRECTIVE = re.compile(r"#\s*escape\s*=\s*(\S)", re.IGNORECASE)
_HEREDOC = re.compile(
    r"(?:^|(?<=\s))\d*<<(?P<dash>-?)(?P<quote>[\"']?)(?P<mark>[A-Za-z_]\w*)(?P=quote)(?=\s|$|[;&|>)])"
)
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_BLANK = " \t\r\n"

#: Image.env writes a variable in this form (modal/_image.py: ``ENV {key}={shlex.quote(val)}``), here with a line break
#: in the value.
_SDK_ENV = re.compile(r"ENV (?P<name>[^=\s]+)=(?P<value>'.*\n.*)", re.DOTALL)


class DockerfileError(ValueError):
    """The error for a line refused by Docker. The text is the reason, without values."""


@dataclass(frozen=True)
class Heredoc:
    """A here-document: its lines, and whether variables in it are left alone."""

    mark: str
    text: str
    literal: bool


@dataclass(frozen=True)
class Command:
    """One instruction, e.g. ``RUN`` and its text; continued lines are joined."""

    verb: str
    rest: str
    heredocs: tuple[Heredoc, ...] = ()

    def __str__(self) -> str:
        return f"{self.verb} {self.rest}".rstrip()


def commands(lines: Iterable[str]) -> Iterator[Command]:
    """Yield the instructions of Dockerfile lines. Each item may contain several lines; comments are left out.

    As in Docker, a comment or a blank line within a continued instruction does not belong to it.
    """
    texts = list(lines)
    if texts:
        # Some editors of Windows put a byte order mark there.
        texts[0] = texts[0].removeprefix("\ufeff")
    for text in texts:
        _check_env_of_the_sdk(text)
    pending = iter([line.removesuffix("\r") for text in texts for line in text.split("\n")])
    is_first = True
    for line in pending:
        if is_first and (directive := _ESCAPE_DIRECTIVE.match(line.strip())) and directive[1] != "\\":
            raise DockerfileError(f"the directive escape={directive[1]} is not supported here; expected a backslash")
        if _is_nothing(line):
            # Directives are comments before all other lines.
            is_first = is_first and bool(line.strip())
            continue
        is_first = False
        whole = line.strip(" \t")
        while _CONTINUED.search(whole):
            whole = _CONTINUED.sub("", whole)
            following = next((more for more in pending if not _is_nothing(more)), None)
            if following is None:
                break
            whole += following.rstrip(_BLANK)
        if not whole.strip():
            continue
        word, *after = whole.split(maxsplit=1)
        verb, rest = word.upper(), (after[0] if after else "").strip()
        if verb not in INSTRUCTIONS:
            raise DockerfileError(f"{_short(word)!r} is not an instruction; expected one such as RUN, ENV or COPY")
        heredocs = _heredocs(rest, pending) if verb in ("RUN", "COPY", "ADD") else ()
        yield Command(verb, rest, heredocs)


def _check_env_of_the_sdk(text: str) -> None:
    """Refuse a value of Image.env with a line break: after a backslash it would be read as another value."""
    match = _SDK_ENV.fullmatch(text)
    if match is None:
        return
    try:
        words = shlex.split(match["value"])
    except ValueError:
        return
    if len(words) == 1 and "\n" in words[0] and shlex.quote(words[0]) == match["value"]:
        raise DockerfileError(f"the value of {_short(match['name'])}: {_not_closed('single')}")


def fields(text: str) -> list[str]:
    """Split the words of an instruction at blanks outside quotes; the quotes stay, see ``value``."""
    found: list[str] = []
    quote, begin, at = "", 0, 0
    while at < len(text):
        char = text[at]
        if not quote and char in _BLANK:
            found.append(text[begin:at])
            begin = at = at + 1
            continue
        if char == "\\" and quote != "'":
            at += 2
            continue
        if char == quote:
            quote = ""
        elif not quote and char in "\"'":
            quote = char
        at += 1
    return [word for word in (*found, text[begin:]) if word]


def value(text: str, variables: Mapping[str, str]) -> str:
    """Return a word without its quotes and with its variables replaced; unset variables are empty."""
    found, _ = _value(text, 0, variables, "")
    if "\0" in found:
        raise DockerfileError("a null character cannot be part of a value")
    return found


def pairs(verb: str, rest: str, variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables set by ``ENV``, each value with the variables as they were before."""
    words = fields(rest)
    if not words:
        raise DockerfileError(f"{verb} needs a name and a value, e.g. {verb} A=1")
    if "=" not in words[0]:
        # The old form: the value is the rest of the line.
        name, *text = rest.split(maxsplit=1)
        if not text:
            raise DockerfileError(f"{verb} {_short(name)} has no value; expected {verb} {_short(name)}=...")
        return {_named(verb, name, variables): _of(name, text[0], variables)}
    made: dict[str, str] = {}
    for word in words:
        name, is_pair, text_of_value = word.partition("=")
        if not is_pair:
            raise DockerfileError(f"{verb} has no '=' in one of its words; expected the form name=value in each")
        made[_named(verb, name, variables)] = _of(name, text_of_value, variables)
    return made


def json_form(rest: str) -> list[str] | None:
    """Return the words of the JSON form, e.g. ``["a", "b"]``; None if it is not one."""
    if not rest.startswith("["):
        return None
    try:
        words = json.loads(rest)
    except ValueError:
        return None
    return words if isinstance(words, list) and all(isinstance(word, str) for word in words) else None


def flags_and_rest(rest: str) -> tuple[list[str], str]:
    """Split the ``--name=value`` words off the beginning of an instruction."""
    flags: list[str] = []
    while (match := re.match(r"--\S+(?:\s+|$)", rest)) is not None:
        flags.append(match[0].strip())
        rest = rest[match.end() :]
    return flags, rest


def _is_nothing(line: str) -> bool:
    return not line.strip() or line.lstrip().startswith("#")


def _heredocs(rest: str, pending: Iterator[str]) -> tuple[Heredoc, ...]:
    found: list[Heredoc] = []
    for match in _HEREDOC.finditer(rest):
        lines: list[str] = []
        for more in pending:
            line = more.lstrip("\t") if match["dash"] else more
            if line == match["mark"]:
                break
            lines.append(line)
        else:
            raise DockerfileError(f"the here-document {match['mark']} is not ended")
        found.append(Heredoc(match["mark"], "".join(f"{line}\n" for line in lines), bool(match["quote"])))
    return tuple(found)


def _named(verb: str, name: str, variables: Mapping[str, str]) -> str:
    found = value(name, variables)
    if not found:
        raise DockerfileError(f"{verb} has a blank name; expected name=value")
    return found


def _of(name: str, text: str, variables: Mapping[str, str]) -> str:
    try:
        return value(text, variables)
    except DockerfileError as error:
        raise DockerfileError(f"the value of {_short(name)}: {error}") from error


def _value(text: str, at: int, variables: Mapping[str, str], stop: str) -> tuple[str, int]:
    """Read up to ``stop``, or to the end; return the text and the place of its end."""
    found: list[str] = []
    while at < len(text):
        char = text[at]
        if char == stop:
            return "".join(found), at
        if char == "'":
            end = text.find("'", at + 1)
            if end < 0:
                raise DockerfileError(_not_closed("single"))
            read, at = text[at + 1 : end], end + 1
        elif char == '"':
            read, at = _double_quoted(text, at + 1, variables)
        elif char == "\\":
            read, at = text[at + 1 : at + 2], at + 2
        elif char == "$":
            read, at = _expanded(text, at, variables)
        else:
            read, at = char, at + 1
        found.append(read)
    if stop:
        raise DockerfileError("a '${' is not closed")
    return "".join(found), at


def _double_quoted(text: str, at: int, variables: Mapping[str, str]) -> tuple[str, int]:
    found: list[str] = []
    while at < len(text):
        char = text[at]
        if char == '"':
            return "".join(found), at + 1
        if char == "\\" and text[at + 1 : at + 2] in ('"', "$", "\\"):
            read, at = text[at + 1], at + 2
        elif char == "$":
            read, at = _expanded(text, at, variables)
        else:
            read, at = char, at + 1
        found.append(read)
    raise DockerfileError(_not_closed("double"))


def _not_closed(which: str) -> str:
    return (
        f"a {which} quote is not closed on its line. A value in a Dockerfile, and so in Image.env, cannot have a line "
        "break: pass it to the function by a Secret instead, e.g. secrets=[modal.Secret.from_dict({...})]"
    )


def _expanded(text: str, at: int, variables: Mapping[str, str]) -> tuple[str, int]:
    """Read the ``$`` at this place and its variable."""
    if text[at + 1 : at + 2] == "{":
        return _braced(text, at + 2, variables)
    match = _NAME.match(text, at + 1)
    if match is not None:
        return variables.get(match[0], ""), match.end()
    if text[at + 1 : at + 2] in tuple("@*#?-$!0123456789"):
        # A shell sets this variable itself; to Docker it is empty.
        return "", at + 2
    return "$", at + 1


def _braced(text: str, at: int, variables: Mapping[str, str]) -> tuple[str, int]:
    match = _NAME.match(text, at)
    if match is None:
        raise DockerfileError("a '${' must be followed by a variable's name")
    name, at = match[0], match.end()
    has_colon = text[at : at + 1] == ":"
    operator = text[at + has_colon : at + has_colon + 1]
    if operator == "}" and not has_colon:
        return variables.get(name, ""), at + 1
    if operator not in tuple("-+?"):
        if at >= len(text):
            raise DockerfileError("a '${' is not closed")
        raise DockerfileError(
            f"${{{name}{text[at : at + 2]}…}} is not supported here; expected ${{{name}:-…}} or ${{{name}:+…}}"
        )
    word, end = _value(text, at + has_colon + 1, variables, "}")
    is_set = bool(variables.get(name)) if has_colon else name in variables
    if operator == "?" and not is_set:
        raise DockerfileError(f"the variable {name} is not set{f': {word}' if word else ''}")
    if operator == "+":
        return (word if is_set else ""), end + 1
    return (variables.get(name, "") if is_set else word), end + 1


def _short(word: str) -> str:
    return word if len(word) <= 40 else f"{word[:40]}…"
