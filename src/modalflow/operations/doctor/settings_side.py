"""Checks of Airflow's settings in a container against this machine's: values, the classes they name, and plugins.

A container's report is untrusted data, and any part of it may be missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from modalflow.airflow_home.classes import COORDINATORS, coordinators, package_of
from modalflow.airflow_home.comparison import PROBLEMS, ComparedOption, Layers, Row, Verdict, compare, counts
from modalflow.airflow_home.loopback import loopback_settings
from modalflow.airflow_home.snapshot import HomeSnapshot
from modalflow.errors import ModalflowError
from modalflow.operations.doctor.findings import Finding, fail, ok, skip, warn, with_rows
from modalflow.operations.doctor.modal_side import FAILURES
from modalflow.operations.host.host_configuration import (
    HostConfiguration,
    home_of_team,
    home_store,
    host_configuration,
    publish,
)
from modalflow.operations.host.local_folders import ADVICE, unshared_folders
from modalflow.operations.site import PATIENCE, Site, within
from modalflow.protocol.messages import Deployment
from modalflow.support.described import describe, words_of
from modalflow.support.text import ID, LINE, one_line

#: The most options with a line of their own. The others are counted.
_LINES = 8
_WORDS = {
    Verdict.SAME: "the same in the container",
    Verdict.KEPT_ON_HOST: "kept here on purpose",
    Verdict.OVERRIDDEN: "overridden by variables or the image",
    Verdict.DIFFERENT: "different in the container",
    Verdict.REFUSED: "refused there",
    Verdict.UNKNOWN_THERE: "unknown there",
}
_PUBLISH = (
    "Restart the scheduler, so that it publishes its settings again. If the worker was deployed before this modalflow, "
    "deploy it again"
)


def here(conf: Any) -> tuple[HostConfiguration | None, list[Finding]]:
    """Return this machine's configuration, and the problems with it; None if a scheduler here could not publish it."""
    try:
        host = host_configuration(conf)
    except (ModalflowError, OSError) as error:
        return None, [fail("settings", words_of(error), "Fix it. Otherwise the scheduler cannot start.")]
    return host, [
        warn("unreadable", problem, "Run the doctor as the user and in the environment of the scheduler.")
        for problem in host.unreadable
    ]


def publish_home(
    site: Site, host: HostConfiguration, deployment: Deployment | None
) -> tuple[HomeSnapshot | None, Finding | None]:
    """Store this machine's configuration for the containers of the doctor; return it, and the obstacle if any."""
    key = "" if deployment is None else deployment.home_key
    try:
        home = within(PATIENCE, lambda: publish(home_store(site), host.home, key))
    except FAILURES as error:
        advice = "Tasks run with Airflow's defaults until the scheduler can write it to the logs Volume. Try again."
        return None, fail("settings", f"they cannot be stored for containers: {describe(error)}", advice)
    if left_out := host.home.left_out(key):
        return home, warn(
            "secret settings",
            f"they do not reach tasks, because the deployed worker has no key for them: {', '.join(left_out)}",
            f"Deploy again, and restart the scheduler: `{site.deploy_command}`.",
        )
    return home, None


def addresses(host: HostConfiguration) -> Iterator[Finding]:
    """Yield a warning about the addresses of this machine that tasks on Modal would have."""
    if found := loopback_settings(host.home.settings, host.home.secret):
        yield warn(
            "addresses",
            f"in a container on Modal, localhost is the container itself: {', '.join(found)}",
            "Name a host within reach of containers. To give another value to tasks alone, set the variable in "
            "[modal_executor] worker_env.",
        )


def folders(host: HostConfiguration, deployment: Deployment | None) -> Iterator[Finding]:
    """Yield a warning about each folder of this machine that the tasks of some profile would not share."""
    for problem in () if deployment is None else unshared_folders(host.home.settings, deployment):
        yield warn("folders", problem, ADVICE)


def homes(home: HomeSnapshot | None, deployment: Deployment | None) -> Callable[[str], HomeSnapshot | None]:
    """Return this machine's homes by team. ``home`` is the one of executors without a team."""
    key = "" if deployment is None else deployment.home_key

    def home_of(team: str) -> HomeSnapshot | None:
        if home is None or not team:
            return home
        try:
            return home_of_team(team).snapshot(key)
        except (ModalflowError, OSError):
            # The same problem is a finding for executors without a team.
            return None

    return home_of


def examine(
    view: Mapping[str, Any],
    options: Sequence[ComparedOption] | None,
    salt: str,
    layers: Layers,
    deploy_command: str,
    absence: str = "the container did not report on them",
) -> Iterator[Finding]:
    """Yield the findings about a container's view. ``options`` is None without Airflow on this machine.

    ``absence`` is the reason if the container reported no options.
    """
    if "options" not in view:
        yield skip("settings", absence)
        return
    if options:
        rows = compare(options, view.get("options"), salt, layers)
        yield from _options(rows, deploy_command)
        same = {(row.section, row.option) for row in rows if row.verdict is Verdict.SAME}
        held = [option for option in options if (option.section, option.option) in same]
        yield from _packages(held, view.get("packages"), deploy_command)
        yield from _coordinators(options)
    yield from _classes(view.get("classes"), deploy_command)
    yield from _plugins(view.get("plugins"), deploy_command)


def _options(rows: Sequence[Row], deploy_command: str) -> Iterator[Finding]:
    found = counts(rows)
    number = f"{len(rows)} option{'' if len(rows) == 1 else 's'} set here"
    detail = f"{number}: " + ", ".join(f"{count} {_WORDS[verdict]}" for verdict, count in found.items())
    different = [row for row in rows if row.verdict in PROBLEMS]
    if different:
        advice = "Each difference that is not on purpose has its line; `--json` has all options."
        summary = warn("settings", detail, advice)
    else:
        summary = ok("settings", detail)
    yield with_rows(summary, [row.to_wire() for row in rows])
    for row in different[:_LINES]:
        yield _difference(row, deploy_command)
    if len(different) > _LINES:
        more = different[_LINES:]
        names = ", ".join(row.name for row in more[:_LINES])
        yield warn("more settings", f"{len(more)} more differ: {names}", "See `modalflow doctor --json`.")


def _difference(row: Row, deploy_command: str) -> Finding:
    there = "it is not set" if row.container is None else f"it is {row.container!r}"
    pair = f"here {row.host!r}, in the container {there}"
    if row.verdict is Verdict.REFUSED:
        advice = "Correct the value on this machine, and restart the scheduler."
        return fail(row.name, f"the container's Airflow refuses {row.host!r}: {row.reason}", advice)
    if row.verdict is Verdict.UNKNOWN_THERE:
        advice = f"Use one version of Airflow and of its providers on both sides: `{deploy_command}`."
        return warn(row.name, f"set here to {row.host!r}; {row.reason}", advice)
    return warn(row.name, f"{pair}: {row.reason}", f"{_PUBLISH}: `{deploy_command}`.")


def _classes(seen: object, deploy_command: str) -> Iterator[Finding]:
    named = [each for each in seen if isinstance(each, dict)] if isinstance(seen, list) else []
    bad = [each for each in named if each.get("problem")]
    for each in bad:
        option = f"[{one_line(each.get('section'), ID)}] {one_line(each.get('option'), ID)}"
        yield fail(
            option,
            f"the container cannot import {one_line(each.get('path'), ID)}: {one_line(each.get('problem'), LINE)}",
            f"Add its package to the worker's image and deploy again: `{deploy_command}`. Or put its module into the "
            "plugins folder of this machine, and restart the scheduler.",
        )
    if named and not bad:
        yield ok("classes", f"{len(named)} named by settings, all imported in the container")


def _packages(options: Sequence[ComparedOption], packages: object, deploy_command: str) -> Iterator[Finding]:
    """Yield the options in effect in the container without the package for them."""
    if not isinstance(packages, dict) or not packages or "error" in packages:
        return
    for option in options:
        package = package_of(option.section, option.option, option.value)
        if package and package not in packages:
            yield fail(
                option.name,
                f"it needs the package {package}, which the container lacks",
                f"Add it to the worker's image, and deploy again: `{deploy_command}`. Or give tasks another value with "
                "[modal_executor] worker_env.",
            )


def _coordinators(options: Sequence[ComparedOption]) -> Iterator[Finding]:
    for option in options:
        if option.travels and (option.section, option.option) == COORDINATORS and (found := coordinators(option.value)):
            listed = ", ".join(f"{key} ({path.rpartition('.')[2]})" for key, path in found.items())
            yield ok("coordinators", f"{listed}: not tested; the image needs the programs and the files that they name")


def _plugins(seen: object, deploy_command: str) -> Iterator[Finding]:
    if not isinstance(seen, dict):
        yield skip("plugins", "the container failed before this check")
        return
    problems = seen.get("errors")
    errors = problems if isinstance(problems, dict) else {}
    advice = (
        "Fix the plugin and restart the scheduler. If it imports a package, add that to the worker's image: "
        f"`{deploy_command}`."
    )
    if seen.get("error"):
        yield fail("plugins", f"they cannot be loaded in the container: {one_line(seen['error'], LINE)}", advice)
        return
    for where, problem in errors.items():
        yield warn(
            "plugins",
            f"{one_line(where, LINE)} failed in the container: {one_line(problem, LINE)}; as in any Airflow, tasks run "
            "without it",
            f"{advice} A DAG that needs it fails at its import.",
        )
    loaded, file = seen.get("loaded"), one_line(seen.get("local_settings") or "", LINE)
    if not errors and isinstance(loaded, list):
        names = ", ".join(one_line(name, ID) for name in loaded[:_LINES]) or "none"
        more = f" and {len(loaded) - _LINES} more" if len(loaded) > _LINES else ""
        settings = f"; local settings from {file}" if file else ""
        yield ok("plugins", f"{names}{more} imported in the container{settings}")
