"""`modalflow doctor`: everything that has to be right before a task runs on Modal, from here to inside a container.

Owns the order of the checks, and what is skipped after which failure. Bounded: every step has a limit of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from modalflow.config.settings import Settings
from modalflow.names import DEFAULT_PROFILE
from modalflow.operations.doctor import (
    airflow_side,
    container_side,
    dags_side,
    executor_side,
    installation_side,
    modal_side,
    token_side,
)
from modalflow.operations.doctor.findings import Finding, skip
from modalflow.operations.site import airflow_conf, config_source, override


def examine(
    *, app: str = "", environment: str = "", profiles: Sequence[str] = (), timeout: float = 120.0
) -> Iterator[Finding]:
    """Findings in the order in which you would fix them. ``profiles`` are those whose container is asked."""
    source, conf = config_source(), airflow_conf()
    settings, mistakes = Settings.examine(source)
    settings = override(settings, app, environment)
    yield installation_side.here()
    yield from airflow_side.settings(source, mistakes)
    yield from airflow_side.airflow(conf)
    address, env = airflow_side.execution_api(settings, conf)
    yield address
    trial, obstacle = token_side.prepare(conf, timeout, airflow_side.WITHOUT_AIRFLOW)
    if obstacle is not None:
        yield obstacle
    yield from _on_modal(settings, conf, env, profiles or (DEFAULT_PROFILE,), timeout, trial)
    if trial is not None:
        # After the containers, which wait for an API server that has just started: it listens some seconds after
        # Airflow reports that it is ready.
        yield token_side.from_here(trial, env)


def _on_modal(
    settings: Settings,
    conf: Any,
    env: Mapping[str, str],
    profiles: Sequence[str],
    timeout: float,
    trial: token_side.Trial | None,
) -> Iterator[Finding]:
    finding, site = modal_side.connection(settings)
    yield finding
    if site is None:
        yield skip("worker app", "Modal has to answer first")
        yield from container_side.unavailable("Modal has to answer first")
        return
    yield modal_side.environment(site)
    findings, deployment, understands = modal_side.worker(site)
    yield from findings
    yield from dags_side.examine(site, conf, deployment)
    if not understands:
        yield from container_side.unavailable("a worker that understands this modalflow has to be deployed first")
        return
    yield from modal_side.shared(site)
    yield from executor_side.examine(site, conf, env)
    for profile in profiles:
        if deployment is not None and profile not in deployment.profiles:
            yield container_side.no_profile(profile, deployment.profiles)
            continue
        yield from container_side.examine(site, profile, env, timeout, trial)
