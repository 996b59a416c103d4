"""The page about configuration tells what is so."""

from __future__ import annotations

from pathlib import Path

from modalflow.config.settings import OPTIONS
from modalflow.config.task_options import KEYS
from modalflow.executor.submission.resources import read_executor_config
from modalflow.operations.options_page import page

PAGE = Path(__file__).parents[3] / "docs" / "configuration.md"


def test_the_page_is_up_to_date() -> None:
    """What is committed is what the tables say: every option, every key."""
    assert PAGE.read_text() == page(), "run `make docs`"


def test_every_number_has_a_unit() -> None:
    """Nobody has to guess whether an interval is seconds or minutes, in Airflow's own listing either."""
    for option in OPTIONS:
        assert bool(option.unit) == (option.type in ("integer", "float")), option.name
        assert option.unit in option.help_text


def test_a_team_has_a_variable_of_its_own() -> None:
    """The form that Airflow's team configuration reads: the team's name and three underscores."""
    assert OPTIONS[0].variable() == "AIRFLOW__MODAL_EXECUTOR__APP_NAME"
    assert OPTIONS[0].variable("team1") == "AIRFLOW__TEAM1___MODAL_EXECUTOR__APP_NAME"


def test_every_example_of_a_key_is_accepted() -> None:
    """What the page shows can be pasted into a DAG."""
    for name, key in KEYS.items():
        read_executor_config({"modal": {name: eval(key.example)}})
