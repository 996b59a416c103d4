"""`airflow modalflow …` takes what `modalflow …` takes."""

from __future__ import annotations

import argparse

import click
import pytest
from airflow.cli.cli_config import ActionCommand, GroupCommand

from modalflow.cli import in_airflow
from modalflow.cli.cancel import cancel
from modalflow.cli.deploy import deploy
from modalflow.cli.logs import logs
from modalflow.cli.profiles.profile import profile
from modalflow.cli.status import status


def parsed(command: click.Command, *words: str) -> list[str]:
    """What Airflow's parser makes of a command line, as the click command gets it."""
    [group] = in_airflow.get_cli_commands()
    [found] = [each for each in group.subcommands if each.name == command.name]
    assert isinstance(found, ActionCommand)
    parser = argparse.ArgumentParser()
    for argument in found.args:
        argument.add_to_parser(parser)
    return in_airflow._argv(command, parser.parse_args(words))


@pytest.mark.parametrize(
    ("command", "words", "argv"),
    [
        (logs, ["d", "t", "r", "--follow", "--try", "2"], ["--try", "2", "--follow", "--", "d", "t", "r"]),
        (cancel, ["fc-1", "--yes"], ["--yes", "--", "fc-1"]),
        (cancel, ["d", "t", "r", "--map-index", "0"], ["--map-index", "0", "--", "d", "t", "r"]),
        (status, ["--json", "--limit", "5"], ["--limit", "5", "--json"]),
        (deploy, ["--dags-bundle", "a=b", "--dags-bundle", "c=d"], ["--dags-bundle", "a=b", "--dags-bundle", "c=d"]),
    ],
)
def test_words_arrive_as_they_were_typed(command: click.Command, words: list[str], argv: list[str]) -> None:
    """Positional words, options with and without a value, options that may be repeated."""
    assert parsed(command, *words) == argv
    command.make_context("modalflow", argv, resilient_parsing=True)


def test_a_group_of_commands_is_a_group_in_airflow_as_well() -> None:
    """`airflow modalflow profile pause NAME` takes what `modalflow profile pause NAME` takes."""
    [group] = in_airflow.get_cli_commands()
    [found] = [each for each in group.subcommands if each.name == "profile"]
    assert isinstance(found, GroupCommand)
    assert {each.name for each in found.subcommands} == {"pause", "resume", "drain", "list"}
    [drain] = [each for each in found.subcommands if isinstance(each, ActionCommand) and each.name == "drain"]
    parser = argparse.ArgumentParser()
    for argument in drain.args:
        argument.add_to_parser(parser)
    argv = in_airflow._argv(
        profile.commands["drain"], parser.parse_args(["gpu", "--no-wait", "--reason", "new drivers"])
    )
    assert argv == ["--reason", "new drivers", "--no-wait", "--", "gpu"]
