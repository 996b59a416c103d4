"""The host's options beside a container's report on them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from modalflow.airflow_home.comparison import ComparedOption, Layers, Verdict, changes, compare, counts
from modalflow.airflow_home.snapshot import HomeSnapshot, SealedSettings, manifest_of
from modalflow.names import HOME_VARIABLES
from modalflow.protocol.probe import Question, WantedOption, digest, shown

SALT = "s"
BERLIN = ComparedOption("core", "default_timezone", "Europe/Berlin", travels=True, place="travels", known=True)
SECRET = ComparedOption("smtp", "smtp_password", "planted", travels=True, secret=True, place="sealed")


def answer(option: ComparedOption, value: str | None, origin: str = "airflow.cfg", **more: Any) -> dict[str, Any]:
    """A container's report on an option."""
    return {
        "section": option.section,
        "option": option.option,
        "digest": None if value is None else digest(value, SALT),
        "shown": None if value is None else shown(value, option.secret),
        "origin": origin,
        "known": True,
        "problem": "",
        **more,
    }


@pytest.mark.parametrize(
    ("seen", "layers", "verdict", "reason"),
    [
        (answer(BERLIN, "Europe/Berlin"), Layers(), Verdict.SAME, ""),
        (answer(BERLIN, "utc", "default"), Layers(), Verdict.DIFFERENT, "default"),
        (answer(BERLIN, None, "nowhere"), Layers(), Verdict.DIFFERENT, "default"),
        (answer(BERLIN, "utc"), Layers(), Verdict.OVERRIDDEN, "airflow.cfg of the image"),
        (
            answer(BERLIN, "utc", "variable"),
            Layers(profile=["AIRFLOW__CORE__DEFAULT_TIMEZONE"]),
            Verdict.OVERRIDDEN,
            "profile",
        ),
        (
            answer(BERLIN, "utc", "variable"),
            Layers(sent=["AIRFLOW__CORE__DEFAULT_TIMEZONE_CMD"]),
            Verdict.OVERRIDDEN,
            "worker_env",
        ),
        (
            answer(BERLIN, "utc", "variable"),
            Layers(image=["AIRFLOW__CORE__DEFAULT_TIMEZONE"]),
            Verdict.OVERRIDDEN,
            "image",
        ),
        (answer(BERLIN, "Europe/Berlin", problem="no zone"), Layers(), Verdict.REFUSED, "no zone"),
        (answer(BERLIN, "Europe/Berlin", known=False), Layers(), Verdict.UNKNOWN_THERE, "no such option"),
        ({"section": "core"}, Layers(), Verdict.DIFFERENT, "did not report"),
    ],
)
def test_an_option_that_travels(seen: dict[str, Any], layers: Layers, verdict: Verdict, reason: str) -> None:
    """It is the same, overridden as documented, or a difference that the user must see."""
    (row,) = compare([BERLIN], [seen], SALT, layers)
    assert row.verdict is verdict and reason in row.reason
    assert row.host == "Europe/Berlin" and row.name == "[core] default_timezone"


def test_an_option_that_stays() -> None:
    """It has the reason of the table, and no value of either side is compared."""
    kept = ComparedOption("core", "fernet_key", "", travels=False, secret=True, reason="A key.", place="never")
    (row,) = compare([kept], [answer(kept, "in the container")], SALT, Layers())
    assert (row.verdict, row.reason, row.host, row.container) == (Verdict.KEPT_ON_HOST, "A key.", None, "***")


@pytest.mark.parametrize("there", ["planted", "other"])
def test_a_secret_is_in_no_row(there: str) -> None:
    """It is compared by digests alone, also if the container's error repeats it."""
    seen = [answer(SECRET, there, problem="planted is refused" if there == "planted" else "")]
    (row,) = compare([SECRET], seen, SALT, Layers())
    assert row.verdict is (Verdict.REFUSED if there == "planted" else Verdict.OVERRIDDEN)
    text = json.dumps(row.to_wire()) + repr(row) + repr(SECRET)
    assert "planted" not in text and "other" not in json.dumps(row.to_wire()["container"])


@pytest.mark.parametrize("seen", [None, 7, "x", [7], [{}], {"a": 1}, [{"section": "core", "option": []}]])
def test_any_report_gives_a_row_for_each_option(seen: object) -> None:
    """A container's word is data, whatever it is."""
    rows = compare([BERLIN, SECRET], seen, SALT, Layers())
    assert counts(rows) == {Verdict.DIFFERENT: 2}


def test_two_homes() -> None:
    """Changed options and files are named; secret settings only as a whole."""
    sealed = SealedSettings("key", "one", "", "")
    ours = HomeSnapshot(
        {"core": {"a": "1", "b": "1"}}, manifest_of({"plugins/x.py": b"1", "plugins/y.py": b""}), sealed
    )
    settings = {"core": {"a": "2"}, "acme": {"c": "1"}, HOME_VARIABLES: {"OTEL_X": "1"}}
    theirs = HomeSnapshot(settings, manifest_of({"plugins/x.py": b"2"}))
    assert changes(ours, theirs) == [
        "[acme] c",
        "[core] a",
        "[core] b",
        "the variable OTEL_X",
        "secret settings",
        "plugins/y.py",
        "plugins/x.py",
    ]
    assert changes(ours, ours) == []


def test_a_question_travels_as_json() -> None:
    """An older worker reads the token, a newer one the options; the token is in no repr."""
    question = Question("id", "token-1", options=(WantedOption("core", "x"), WantedOption("smtp", "p", True)))
    read = Question.from_json(question.to_json())
    assert (read.id, read.token, read.salt, list(read.options)) == ("id", "token-1", question.salt, [*question.options])
    assert json.loads(question.to_json())["token"] == "token-1" and "token-1" not in repr(question)
    older = Question.from_json('{"id": "i", "token": "t"}')
    assert (older.token, list(older.options)) == ("t", [])


def test_a_url_is_shown_without_its_user() -> None:
    """Passwords are also in values that no one calls secret."""
    assert shown("statsd://me:planted@host/x", False) == "statsd://host/x"
    assert len(shown("x" * 9999, False)) <= 200
