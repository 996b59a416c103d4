"""Text from outside: whatever it holds, it can be stored, logged and printed, and a reader sees what was in it."""

from __future__ import annotations

import json
import re
import time
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modalflow.support.text import REASON, clean, for_terminal, json_line, one_line
from tests.strange import JSON_VALUES, TEXTS

LENGTHS = st.integers(min_value=0, max_value=200)


class Unprintable:
    """An object whose text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no text for you")

    __repr__ = __str__


class Liar(str):
    """A text that shows itself as another one."""

    def __str__(self) -> str:
        return Liar("a\x00b")

    def __len__(self) -> int:
        return 0


def is_safe(text: str, *, newlines: bool = True) -> bool:
    allowed = "\t\n" if newlines else ""
    text.encode("utf-8")
    return type(text) is str and all(
        each in allowed or unicodedata.category(each) not in ("Cc", "Cs", "Zl", "Zp") for each in text
    )


@settings(deadline=None)
@given(TEXTS, LENGTHS)
def test_what_is_cleaned_is_safe_bounded_and_stays_as_it_is(text: str, longest: int) -> None:
    """No NUL, surrogate or control character is left, nothing is longer than asked, and cleaning twice is once."""
    lines, line = clean(text, longest), one_line(text, longest)
    assert is_safe(lines)
    assert is_safe(line, newlines=False)
    assert max(len(lines), len(line)) <= longest
    assert clean(lines, longest) == lines
    assert one_line(line, longest) == line


@settings(deadline=None)
@given(TEXTS)
def test_a_terminal_shows_it_and_does_nothing(text: str) -> None:
    """All that is left of escape sequences are colours, and they end with the text."""
    shown = for_terminal(text)
    shown.encode("utf-8")
    assert is_safe(re.sub(r"\x1b\[[0-9;]*m", "", shown))
    assert "\x1b" not in shown or shown.rfind("\x1b[0m") == shown.rfind("\x1b")
    assert for_terminal(shown) == shown


@settings(deadline=None)
@given(JSON_VALUES)
def test_a_line_of_json_keeps_its_value(value: object) -> None:
    """Lines that are passed on as they are stay valid JSON of the same value, and cannot steer a terminal either."""
    line = json.dumps(value, ensure_ascii=False)
    safe = json_line(line)
    assert is_safe(safe)
    assert json.dumps(json.loads(safe)) == json.dumps(json.loads(line))


@settings(deadline=None)
@given(
    st.one_of(
        st.binary(),
        st.integers(),
        st.floats(),
        st.none(),
        st.lists(st.binary()),
        st.builds(Unprintable),
        st.builds(RuntimeError, TEXTS),
        st.just(10**5000),
        st.just(Liar("x" * 10_000)),
    )
)
def test_any_value_becomes_text(value: object) -> None:
    """Whatever is handed over, nothing is raised: a reason must arrive."""
    assert is_safe(clean(value))
    assert is_safe(one_line(value), newlines=False)
    assert len(clean(value)) <= REASON


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("bad field: A\x00B", "bad field: A\\x00B"),
        ("no such file: caf\udce9.csv", "no such file: caf\\udce9.csv"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;owned\x07\x1b[2J", "\\x1b]0;owned\\x07\\x1b[2J"),
        ("\x1b\x1b[0m[2J", "\\x1b[2J"),
        ("50%\r100%", "50%\\r100%"),
        ("one\r\ntwo\n\tthree", "one\ntwo\n\tthree"),
        ("user\u202egpj.exe", "user\\u202egpj.exe"),
        ("a\u2028b\x85c", "a\\u2028b\\x85c"),
        ("\U000e0041", "\\U000e0041"),
        ("[red]100%[/] {x} %s", "[red]100%[/] {x} %s"),
        ("naïve 日本語 👩‍👩‍👧 नमस्‍ते", "naïve 日本語 👩‍👩‍👧 नमस्‍ते"),
        (b"caf\xe9\x00", "caf\\xe9\\x00"),
        (None, "None"),
    ],
)
def test_what_is_not_safe_is_written_out(text: object, shown: str) -> None:
    """A reader sees which character was there; ordinary text of any language stays as it is."""
    assert clean(text) == shown


def test_a_line_has_no_newlines() -> None:
    """Where there is room for one line, no text can pass for another line of the log."""
    assert one_line("failed\n2026-01-01 INFO all is well\ttrue") == "failed\\n2026-01-01 INFO all is well\\ttrue"


def test_what_is_cut_says_how_much_is_missing() -> None:
    """Ten megabytes become a reason of the usual length, at once."""
    began = time.process_time()
    text = clean("_" * 10_000_000)
    assert text.startswith("____")
    assert text.endswith(f"_… ({10_000_000 - text.count('_'):,} more characters)")
    assert len(text) <= REASON
    assert len(clean("\x00" * 10_000_000)) <= REASON
    assert time.process_time() - began < 2


def test_no_escape_is_cut_in_half() -> None:
    """The text ends before a character that has no room once it is written out."""
    assert clean("_" * 60 + "\x00" * 60, 100) == "_" * 60 + "\\x00" * 4 + "… (56 more characters)"
