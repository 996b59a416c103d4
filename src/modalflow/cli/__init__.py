"""The ``modalflow`` command: one file per subcommand, imported when it is called."""

from __future__ import annotations

import importlib

import click

from modalflow import __version__

#: Subcommand → its function and its line in the overview. So the overview imports none of them.
COMMANDS: dict[str, tuple[str, str]] = {
    "deploy": ("modalflow.cli.deploy:deploy", "Deploy the worker that runs Airflow's tasks on Modal."),
    "sync": (
        "modalflow.cli.sync:sync",
        "Upload the DAG files of this machine for the worker.",
    ),
    "doctor": ("modalflow.cli.doctor:doctor", "Check everything a task on Modal needs, and show how to fix it."),
    "demo": ("modalflow.cli.demo:demo", "Run an example DAG in a real Airflow with tasks on Modal, on this machine."),
    "status": ("modalflow.cli.status:status", "Show the running and waiting tasks on Modal."),
    "logs": ("modalflow.cli.logs:logs", "Print a task's log, during the task or after it."),
    "cost": ("modalflow.cli.cost:cost", "Show the resources of tasks on Modal, and their estimated cost."),
    "advise": (
        "modalflow.cli.spending.advise:advise",
        "Show what tasks could save, and which nearly ran out of memory or time.",
    ),
    "render": ("modalflow.cli.task.render:render", "Show what a task would ask of Modal, before it runs."),
    "replay": ("modalflow.cli.task.replay:replay", "Run a try again on this machine, and change nothing in Airflow."),
    "cancel": ("modalflow.cli.cancel:cancel", "Cancel a waiting or running task on Modal."),
    "migrate": (
        "modalflow.cli.migration.migrate:migrate",
        "Show what changes in DAG files of another executor.",
    ),
    "profile": ("modalflow.cli.profiles.profile:profile", "Pause, resume, drain and list profiles."),
    "relay": ("modalflow.cli.relay:relay", "Answer requests of containers to Airflow, which needs no open port."),
    "local": ("modalflow.cli.local.local:local", "Run Modal's control plane on this machine."),
}


class LazyGroup(click.Group):
    """A group that imports a subcommand's module at its first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.command(cls=LazyGroup)
@click.version_option(__version__, prog_name="modalflow")
def main() -> None:
    """Run Airflow workloads on Modal."""
