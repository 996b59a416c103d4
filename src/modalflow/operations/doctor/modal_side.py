"""Checks of Modal's side: credentials, environment, the deployed worker, and the objects shared with executors.

Every step has a time limit. Every test object is removed.
"""

from __future__ import annotations

import io
import platform
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import modal
from modal import exception

from modalflow import __version__
from modalflow.config.budgets import EACH, Scope, shown_budgets
from modalflow.config.settings import Settings
from modalflow.control_plane import AS_FOR_SCHEDULER, CHECK_NETWORK, is_emulated, server_url
from modalflow.errors import AirflowSettingError, CredentialsError, ModalflowError
from modalflow.logs.log_volume import LogVolume
from modalflow.names import DEFAULT_PROFILE
from modalflow.operations.doctor.findings import Finding, fail, ok, skip, timed, warn
from modalflow.operations.profiles.pausing import read_holds
from modalflow.operations.site import PATIENCE, Site, check_the_way, open_site, within
from modalflow.protocol.messages import PROTOCOL, Deployment
from modalflow.protocol.profile_holds import ProfileHolds
from modalflow.support.described import describe, words_of

FAILURES = (exception.Error, ModalflowError, OSError, TimeoutError)

#: Folder for the Volume's round trip. Airflow never writes there.
_FOLDER = "modalflow-doctor"


def connection(settings: Settings) -> tuple[Finding, Site | None]:
    """Check the connection to Modal and the credentials."""
    try:
        site, seconds = timed(lambda: open_site(settings))
    except CredentialsError as error:
        advice = f"Create a token with `modal token new`, and put it into the Airflow connection {settings.conn_id!r}."
        return fail("credentials", str(error), advice), None
    except AirflowSettingError as error:
        return fail("Airflow", str(error).removesuffix(AS_FOR_SCHEDULER).rstrip(), AS_FOR_SCHEDULER), None
    except ModalflowError as error:
        # For other commands, the error has the advice as well.
        what = str(error).removesuffix(check_the_way()).removesuffix(CHECK_NETWORK).rstrip()
        return fail("control plane", what, check_the_way()), None
    kind = " (a local control plane)" if is_emulated() else ""
    return ok("credentials", f"accepted by {server_url()}{kind}", seconds), site


def environment(site: Site) -> Finding:
    """Check the Modal environment."""
    from modal.environments import list_environments

    wanted = site.control_plane.environment
    try:
        found: Any = within(PATIENCE, lambda: list_environments(client=site.control_plane.client))
    except FAILURES as error:
        return skip("environment", f"Modal did not list its environments ({_reason(error)})")
    names = sorted(each.name for each in found)
    default = next((each.name for each in found if getattr(each, "default", False)), "the workspace's default")
    if wanted and wanted not in names:
        return fail(
            "environment",
            f"there is no Modal environment {wanted!r}; existing ones: {', '.join(names)}",
            f"Fix [modal_executor] environment or the connection's extra, or run `modal environment create {wanted}`.",
        )
    return ok("environment", wanted or f"{default} (none is set)")


def worker(site: Site) -> tuple[list[Finding], Deployment | None, bool]:
    """Check the deployed app. Return the findings, the record of the deployment, and whether it can answer a probe."""
    name = site.names.function(DEFAULT_PROFILE)
    try:
        function: Any = modal.Function.from_name(site.names.app, name, **site.scope)
        _, seconds = timed(lambda: within(PATIENCE, function.hydrate))
    except exception.NotFoundError as error:
        return [fail("worker app", str(error), f"Deploy it: `{site.deploy_command}`.")], None, False
    except FAILURES as error:
        return (
            [fail("worker app", _reason(error), "Try again; Modal's status is at https://status.modal.com.")],
            None,
            False,
        )
    findings = [ok("worker app", f"{site.names.app} has Function {name}", seconds)]
    try:
        record = within(PATIENCE, LogVolume(site.control_plane, site.names).deployment)
    except FAILURES as error:
        return (
            [*findings, fail("worker version", _reason(error), f"Deploy again: `{site.deploy_command}`.")],
            None,
            True,
        )
    if record is None:
        missing = "the logs Volume has no record of the deployment, so versions cannot be compared"
        return [*findings, warn("worker version", missing, f"Deploy it with `{site.deploy_command}`.")], None, True
    findings += [_version(site, record), *_versions_beneath(site, record)]
    findings += [*_profiles(site, record), *_queues(site, record), *_budgets(site, record)]
    return findings, record, record.protocol == PROTOCOL


def _version(site: Site, record: Deployment) -> Finding:
    when = datetime.fromtimestamp(record.deployed_at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    deployed = f"modalflow {record.version}, deployed {when}"
    advice = f"Deploy the worker of this modalflow: `{site.deploy_command}`."
    if record.protocol != PROTOCOL:
        spoken = f"{deployed}, has protocol {record.protocol}; this is modalflow {__version__}, protocol {PROTOCOL}"
        return fail("worker version", spoken, advice)
    if record.version != __version__:
        return warn("worker version", f"{deployed}; this is {__version__}: they are compatible", advice)
    return ok("worker version", deployed)


def _versions_beneath(site: Site, record: Deployment) -> Iterator[Finding]:
    try:
        from modalflow.airflow_compat.versions import AIRFLOW_VERSION as ours
    except ImportError:
        yield skip(
            "Airflow versions", f"the worker has {record.airflow_version or 'none'}; Airflow is not installed here"
        )
        return
    theirs = record.airflow_version
    pair = f"worker {theirs or 'without Airflow'}, here {ours}"
    advice = f"Deploy from the environment of the scheduler: `{site.deploy_command}`."
    if not theirs:
        yield fail("Airflow versions", f"{pair}: it can run raw commands only", advice)
    elif _minor(theirs) != _minor(ours):
        yield fail("Airflow versions", f"{pair}: they cannot read each other's data", advice)
    elif theirs != ours:
        yield warn("Airflow versions", f"{pair}: the same minor version, so they are compatible", advice)
    else:
        yield ok("Airflow versions", pair)
    here = platform.python_version()
    if _minor(here) != _minor(record.python_version):
        yield warn("Python versions", f"worker {record.python_version}, here {here}", advice)


def _profiles(site: Site, record: Deployment) -> Iterator[Finding]:
    try:
        holds = read_holds(site)
    except FAILURES as error:
        holds = ProfileHolds(problem=_reason(error))
    if holds.problem:
        yield warn("paused profiles", holds.warning, "Run `modalflow profile list`.")
    for profile in record.profiles:
        name = site.names.function(profile)
        try:
            function: Any = modal.Function.from_name(site.names.app, name, **site.scope)
            stats: Any = within(PATIENCE, function.get_current_stats)
        except FAILURES as error:
            yield fail(f"profile {profile}", _reason(error), f"Deploy again: `{site.deploy_command}`.")
            continue
        figures = f"{stats.num_total_runners} containers, {stats.backlog} inputs waiting"
        if (hold := holds.by_profile.get(profile)) is None:
            yield ok(f"profile {profile}", figures)
        else:
            reason = f" ({hold.reason})" if hold.reason else ""
            detail = f"{hold.label}{reason}, so its tasks wait; {figures}"
            yield warn(f"profile {profile}", detail, f"Resume it: `modalflow profile resume {profile}`.")


def _queues(site: Site, record: Deployment) -> Iterator[Finding]:
    """Check the profiles of ``[modal_executor] queues``."""
    queues = site.settings.queues
    lost = {queue: profile for queue, profile in queues.items() if profile not in record.profiles}
    if lost:
        lost_queues = ", ".join(f"{queue} → {profile}" for queue, profile in lost.items())
        yield fail(
            "queues",
            f"[modal_executor] queues names undeployed profiles: {lost_queues}; deployed: {', '.join(record.profiles)}",
            "Deploy them, or fix the option.",
        )
    elif queues:
        yield ok("queues", ", ".join(f"{queue} → {profile}" for queue, profile in queues.items()))


def _budgets(site: Site, record: Deployment) -> Iterator[Finding]:
    """Check the profiles of ``[modal_executor] budgets``, and show what they limit."""
    budgets = site.settings.budgets
    if not budgets:
        return
    named = {budget.name for budget in budgets if budget.scope is Scope.PROFILE and budget.name != EACH}
    if lost := sorted(named - {*record.profiles}):
        yield warn(
            "budgets",
            f"they name undeployed profiles, which spend nothing: {', '.join(lost)}; deployed: "
            f"{', '.join(record.profiles)}",
            "Fix the names in [modal_executor] budgets, and restart the scheduler.",
        )
    else:
        yield ok("budgets", f"{shown_budgets(budgets)}; days and months of time zone {site.settings.time_zone}")


def shared(site: Site) -> Iterator[Finding]:
    """Test the objects shared by executors and workers with round trips."""
    mark = uuid.uuid4().hex
    yield _round_trip("ledger", f"Dict {site.names.ledger}", lambda: _ledger(site, mark), site)
    yield _round_trip("events", f"Modal Queue {site.names.events}", lambda: _events(site, mark), site)
    yield _round_trip("logs", f"Volume {site.names.logs}", lambda: _logs(site, mark), site)


def _round_trip(name: str, what: str, trip: Callable[[], bool], site: Site) -> Finding:
    try:
        same, seconds = timed(lambda: within(PATIENCE, trip))
    except exception.NotFoundError as error:
        return fail(name, f"{what}: {words_of(error)}", f"Create it: `{site.deploy_command}`.")
    except FAILURES as error:
        return fail(name, f"{what}: {_reason(error)}", "Try again; Modal's status is at https://status.modal.com.")
    if not same:
        return fail(
            name, f"{what}: the value changed between write and read", "Find the other program with access to it."
        )
    return ok(name, f"{what}: written, read and removed", seconds)


def _ledger(site: Site, mark: str) -> bool:
    ledger: Any = modal.Dict.from_name(site.names.ledger, **site.scope)
    key = f"doctor-{mark}"
    ledger.put(key, mark)
    return bool(ledger.get(key) == mark and ledger.pop(key) == mark)


def _events(site: Site, mark: str) -> bool:
    events: Any = modal.Queue.from_name(site.names.events, **site.scope)
    partition = f"doctor-{mark[:16]}"
    events.put(mark, partition=partition, partition_ttl=60)
    return bool(events.get(partition=partition, timeout=PATIENCE) == mark)


def _logs(site: Site, mark: str) -> bool:
    volume: Any = modal.Volume.from_name(site.names.logs, **site.scope)
    path = f"{_FOLDER}/{mark}.txt"
    with volume.batch_upload(force=True) as batch:
        batch.put_file(io.BytesIO(mark.encode()), f"/{path}")
    read = b"".join(volume.read_file(path)).decode()
    volume.remove_file(path)
    return read == mark


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {PATIENCE:g} s"
    return describe(error)
