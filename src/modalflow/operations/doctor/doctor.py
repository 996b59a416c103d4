"""`modalflow doctor`: all requirements of a task on Modal, from this machine to inside a container.

Owns the order of the checks, and the checks to skip after a failure. Each step has a time limit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from modalflow.config.settings import Settings
from modalflow.control_plane import is_local
from modalflow.names import DEFAULT_PROFILE
from modalflow.operations.doctor import (
    airflow_side,
    container_side,
    dags_side,
    executor_side,
    installation_side,
    modal_side,
    settings_side,
    token_side,
)
from modalflow.operations.doctor.findings import Finding, skip
from modalflow.operations.host.host_configuration import HostConfiguration
from modalflow.operations.relay import checks as relay_checks
from modalflow.operations.site import airflow_conf, config_source, override, time_zone_of
from modalflow.support.packages import installed_packages


def examine(
    *, app: str = "", environment: str = "", profiles: Sequence[str] = (), timeout: float = 120.0
) -> Iterator[Finding]:
    """Yield findings in the order of their fixes. ``profiles`` are checked in a container."""
    source, conf = config_source(), airflow_conf()
    settings, mistakes = Settings.examine(source)
    settings = dataclasses.replace(override(settings, app, environment), time_zone=time_zone_of(conf))
    yield installation_side.here()
    yield from airflow_side.settings(source, mistakes)
    yield from airflow_side.airflow(conf)
    address, env = airflow_side.execution_api(settings, conf)
    yield address
    trial, obstacle = token_side.prepare(conf, timeout, airflow_side.WITHOUT_AIRFLOW)
    if obstacle is not None:
        yield obstacle
    host = None
    if conf is not None:
        host, obstacles = settings_side.here(conf)
        yield from obstacles
    yield from _on_modal(settings, conf, env, profiles or (DEFAULT_PROFILE,), timeout, trial, host)
    if trial is not None:
        # After the containers. They wait for a new API server, and it listens some seconds after Airflow's report.
        yield token_side.from_here(trial, env)


def _on_modal(
    settings: Settings,
    conf: Any,
    env: Mapping[str, str],
    profiles: Sequence[str],
    timeout: float,
    trial: token_side.Trial | None,
    host: HostConfiguration | None,
) -> Iterator[Finding]:
    finding, site = modal_side.connection(settings)
    yield finding
    if site is None:
        yield skip("worker app", "needs an answer from Modal")
        yield from container_side.unavailable("needs an answer from Modal")
        return
    yield modal_side.environment(site)
    findings, deployment, understands = modal_side.worker(site)
    yield from findings
    yield from dags_side.examine(site, conf, deployment)
    if not understands:
        yield from container_side.unavailable("needs a compatible deployed worker")
        return
    yield from modal_side.shared(site)
    home = None
    if host is not None:
        home, obstacle = settings_side.publish_home(site, host, deployment)
        if obstacle is not None:
            yield obstacle
        if not is_local():
            yield from settings_side.addresses(host)
        yield from settings_side.folders(host, deployment)
    yield from executor_side.examine(site, conf, env, settings_side.homes(home, deployment))
    relay = ""
    if site.settings.uses_relay:
        finding, relay = relay_checks.key(site, conf)
        yield finding
        if relay:
            yield from relay_checks.relays(site)
    side = container_side.Host(
        None if host is None else host.options, installed_packages(), "" if home is None else home.id
    )
    for profile in profiles:
        if deployment is not None and profile not in deployment.profiles:
            yield container_side.no_profile(profile, deployment.profiles)
            continue
        yield from container_side.examine(site, profile, env, timeout, trial, side, relay)
