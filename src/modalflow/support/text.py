"""External text, made safe for storage, logs and terminals: the one place for this decision.

A container, a task or Modal may send any text. The results of this module are encodable as UTF-8. They have no NUL,
lone surrogates, control characters, escape sequences and invisible characters for reordering or hiding. All of these
appear as Python's escapes (``\\x00``, ``\\udce9``). Results have a limited length and report the missing part. No I/O.
Never raises, for any value.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

#: Characters of a reason. MySQL's TEXT holds 65,535 bytes, a pipe 65,536: four bytes each and JSON's escapes fit.
REASON: Final = 4_000
#: Characters of an external text within a reason, so that the advice after it is not cut off.
QUOTE: Final = 3_000
#: Characters of a text stored by Airflow: a reason and a sentence around it.
STORED: Final = 8_000
#: Characters of one line of a log or a table.
LINE: Final = 1_000
#: Characters of an id of Modal's, or of a state's name.
ID: Final = 128

#: A shorter text has no room for the number of missing characters.
_LEAST_WITH_COUNT = 48

#: Control characters except tab and newline; surrogates; line and paragraph separators; noncharacters. Also characters
#: for text direction and invisible characters, except joiners for scripts and emoji.
_UNSAFE = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029"
    "\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff"
    "\U000e0000-\U000e007f"
)
#: A colour or a style of a terminal: the only harmless escape sequence.
_COLOUR = r"\x1b\[[0-9;]{0,32}m"
_COLOURS = re.compile(_COLOUR)
_IN_LINES = re.compile(f"[{_UNSAFE}]")
_IN_ONE_LINE = re.compile(f"[{_UNSAFE}\t\n]")
_ON_TERMINAL = re.compile(f"{_COLOUR}|[{_UNSAFE}]")
_NAMED = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}
_RESET = "\x1b[0m"


def clean(value: object, longest: int = REASON) -> str:
    """Return a value as safe text of at most ``longest`` characters. Tabs and newlines stay, colours are dropped."""
    if type(value) is str and len(value) <= longest and value.isascii() and value.isprintable():
        # Most are, and a heartbeat has hundreds.
        return value
    return _bounded(_text(value), longest, _IN_LINES)


def one_line(value: object, longest: int = LINE) -> str:
    """Return a value as safe text in a single line: newlines and tabs are written out as well."""
    if type(value) is str and len(value) <= longest and value.isascii() and value.isprintable():
        # Most are, and a page about costs reads many thousands.
        return value
    return _bounded(_text(value), longest, _IN_ONE_LINE)


def for_terminal(value: object) -> str:
    """Return a value as text without control over a terminal. Colours stay, and end with the text. No length limit."""
    text = _text(value)
    if _is_plain(text):
        return text
    text = _ON_TERMINAL.sub(_unless_colour, text.replace("\r\n", "\n"))
    return f"{text}{_RESET}" if text.rfind("\x1b") > text.rfind(_RESET) else text


def from_json(text: str | bytes) -> Any:
    """Return the value of a JSON text. Raises ValueError for any other text, for any depth or length."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def json_line(line: str) -> str:
    """Return a line of JSON with unsafe characters as JSON escapes. Its value stays the same."""
    return line if _is_plain(line) else _IN_LINES.sub(_as_json, line)


def _text(value: object) -> str:
    """Return an exact ``str``, for any methods of the value."""
    if type(value) is str:
        return value
    try:
        if isinstance(value, bytes | bytearray):
            return bytes(value).decode("utf-8", "backslashreplace")
        return str.__str__(str(value))
    except Exception:  # noqa: BLE001  A foreign ``__str__`` may raise anything, and a reason must arrive all the same.
        return f"<unprintable {type(value).__name__}>"


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isprintable()


def _bounded(text: str, longest: int, unsafe: re.Pattern[str]) -> str:
    if len(text) <= longest and _is_plain(text):
        return text
    if "\x1b" in text:
        text = _COLOURS.sub("", text)
    if "\r" in text:
        text = text.replace("\r\n", "\n")
    # No later step shortens the text, so this much of a text of megabytes is enough.
    safe = unsafe.sub(_written, text[:longest])
    if len(text) <= longest and len(safe) <= longest:
        return safe
    if longest < _LEAST_WITH_COUNT:
        return unsafe.sub(_written, text[: _fitting(text, longest - 1, unsafe)]) + "…" if longest > 0 else ""
    shown = _fitting(text, longest - len(_more(len(text))), unsafe)
    return unsafe.sub(_written, text[:shown]) + _more(len(text) - shown)


def _fitting(text: str, room: int, unsafe: re.Pattern[str]) -> int:
    """Return how many characters of a text fit into ``room`` after escaping."""
    grown = 0
    for found in unsafe.finditer(text, 0, min(len(text), room)):
        growth = len(_written(found)) - 1
        if found.end() + grown + growth > room:
            return min(found.start(), room - grown)
        grown += growth
    return max(min(len(text), room - grown), 0)


def _more(count: int) -> str:
    return f"… ({count:,} more characters)"


def _written(found: re.Match[str]) -> str:
    character = found[0]
    code = ord(character)
    if character in _NAMED:
        return _NAMED[character]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _unless_colour(found: re.Match[str]) -> str:
    return found[0] if len(found[0]) > 1 else _written(found)


def _as_json(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1]
