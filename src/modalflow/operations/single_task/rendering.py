"""What a task would ask of Modal, from the executor's own code: its profile, options, variables and price.

Submits nothing, and writes nothing to Airflow.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from modalflow.airflow_compat.configuration import default_queue
from modalflow.airflow_compat.task_logs import other_executor_of
from modalflow.config.settings import Settings
from modalflow.config.values import AUTO
from modalflow.cost.history import History
from modalflow.cost.rates import DATED, UnknownRateError
from modalflow.cost.usage import Record, Reserved
from modalflow.executor.mailbox import SubmitRequest
from modalflow.executor.submission.placement import OptionSets, Place, Placement, Routing
from modalflow.executor.submission.sizing import NOTHING_KNOWN, Known, Terms
from modalflow.executor.worker_env import resolved, workload_env
from modalflow.executor.workloads import log_path_of_key, request_of_workload, task_try_of
from modalflow.logs.usage_files import DAYS
from modalflow.operations.costs import read_usage
from modalflow.operations.single_task.profiles import Profiles
from modalflow.protocol.messages import Deployment

#: Sources of values.
TASK, AIRFLOW, WORKER_ENV = "modal_config", "Airflow's settings", "[modal_executor] worker_env"
_ALONE = "alone in its container, because the task sets cpu, memory or gpu"
_SHARED_IMAGE = "that of the Worker"


@dataclass(frozen=True)
class Value:
    """The value of an option, and its source."""

    value: Any
    source: str


@dataclass(frozen=True)
class Rendered:
    """What one task would ask of Modal."""

    profile: str
    profile_source: str
    image: str
    options: Mapping[str, Value]
    variables: Mapping[str, str]
    """Name → source. Values are not shown: some are secret."""
    dollars_per_hour: Decimal | None
    """The estimated price while the task has a container to itself; None if it is not known."""
    price_problem: str = ""
    rates: str = ""
    notes: list[str] = field(default_factory=list)


class _Unsent:
    """A task instance in place of its workload, which would need a token."""

    def __init__(self, ti: Any) -> None:
        self.ti = ti
        self.log_path = log_path_of_key(ti.key)

    def model_dump_json(self) -> str:
        return ""


def render(ti: Any, settings: Settings, conf: Any, profiles: Profiles) -> Rendered:
    """Return what a task instance would ask of Modal.

    Raises WorkloadRejectedError with the executor's own words if it would reject the task, and ConfigError if the
    executor could not start.
    """
    settings = resolved(settings, conf)
    request = request_of_workload(_Unsent(ti), ti.key, None, workload_env(settings, conf))
    placement = placement_of(settings, conf)
    deployment = profiles.deployment
    terms = placement.terms(request, deployment)
    notes = list(_notes(ti, request, profiles))
    known = NOTHING_KNOWN if terms is None else _known(terms, request, profiles, notes)
    place = placement.place(request, deployment, terms, known)
    notes += [note for note in (place.warning, place.note) if note]
    dollars, problem = _price(place.granted)
    return Rendered(
        profile=place.profile,
        profile_source=_profile_source(request, settings, place),
        image=_image(place.profile, deployment),
        options=dict(_options(place, request, terms, profiles)),
        variables=_variables(request, settings, place.profile, deployment),
        dollars_per_hour=dollars,
        price_problem=problem,
        rates=DATED.source,
        notes=notes,
    )


def placement_of(settings: Settings, conf: Any) -> Placement:
    """Return the executor's placement of tasks, without a limit on sets of options: that depends on other tasks."""
    routing = Routing(settings.queues, default_queue(conf))
    return Placement(routing, OptionSets(0, time.monotonic), settings.task_timeout)


def _notes(ti: Any, request: SubmitRequest, profiles: Profiles) -> Iterator[str]:
    if profiles.problem:
        problem = profiles.problem.rstrip(".")
        yield f"The values of its profile are unknown: {problem}. Name the Worker file with --worker."
    if executor := other_executor_of(ti):
        yield f'{executor} runs this task, not ModalExecutor: with executor="ModalExecutor", it would ask for this.'
    if request.draft.note:
        yield request.draft.note


def _known(terms: Terms, request: SubmitRequest, profiles: Profiles, notes: list[str]) -> Known:
    if terms.grows:
        notes.append("A try after one that ran out of memory or time asks for more than this.")
    if not terms.needs_history:
        return NOTHING_KNOWN
    if profiles.site is None:
        notes.append("A size that is 'auto' follows from the last runs, which are on Modal and were not read.")
        return NOTHING_KNOWN
    history = History()
    history.add(read_usage(profiles.site, datetime.now(UTC) - timedelta(days=DAYS)).records)
    task = task_try_of(request.key)
    return Known(history.runs(task.dag_id, task.task_id)) if task is not None else NOTHING_KNOWN


def _profile_source(request: SubmitRequest, settings: Settings, place: Place) -> str:
    if request.profile is not None:
        return TASK
    queue = request.airflow_queue or "default"
    if queue in settings.queues:
        return f"queue {queue!r} in [modal_executor] queues"
    return f"queue {queue!r}"


def _image(profile: str, deployment: Deployment | None) -> str:
    if deployment is None:
        return "unknown"
    own = deployment.facts.get(profile, {}).get("image")
    if own:
        return str(own)
    parts = [f"Python {deployment.python_version}"] if deployment.python_version else []
    parts += [f"Airflow {deployment.airflow_version}"] if deployment.airflow_version else []
    return f"{_SHARED_IMAGE} ({', '.join(parts)})" if parts else _SHARED_IMAGE


def _options(
    place: Place, request: SubmitRequest, terms: Terms | None, profiles: Profiles
) -> Iterator[tuple[str, Value]]:
    asked = request.resources.plain()
    own = place.options.plain()
    of_profile = profiles.deployment.granted.get(place.profile, {}) if profiles.deployment is not None else {}
    facts = profiles.deployment.facts.get(place.profile, {}) if profiles.deployment is not None else {}
    for name, value in {**place.granted, **own}.items():
        yield name, Value(value, _source(name, place, asked, terms))
    for name in ("secrets", "volumes"):
        if name in facts and name not in own:
            yield name, Value(facts[name], f"profile {place.profile!r}")
    for name in ("memory", "cpu"):
        if AUTO in (asked.get(name), of_profile.get(name)) and name not in place.granted:
            yield name, Value("Modal's default", "'auto', without enough runs of the task")
    for name in ("submit_attempts", "infrastructure_retries"):
        if (given := getattr(request, name)) is not None:
            yield name, Value(given, TASK)


def _source(name: str, place: Place, asked: Mapping[str, Any], terms: Terms | None) -> str:
    if place.sized.get(name):
        return f"'auto', from {place.sized[name]} runs"
    if name in asked and asked[name] != AUTO:
        return TASK
    if name == "concurrency" and place.options.unshared:
        return _ALONE
    grown = terms is not None and name in ("memory", "timeout") and name in place.options.plain()
    return "growth after an earlier try" if grown and place.note else f"profile {place.profile!r}"


def _variables(
    request: SubmitRequest, settings: Settings, profile: str, deployment: Deployment | None
) -> dict[str, str]:
    found = {name: WORKER_ENV if name in settings.worker_env else AIRFLOW for name in request.draft.env}
    if deployment is not None:
        found |= dict.fromkeys(deployment.env, "env of the Worker")
        found |= dict.fromkeys(deployment.facts.get(profile, {}).get("env", {}), f"profile {profile!r}")
    return found | dict.fromkeys(request.draft.own_env, TASK)


def _price(granted: Mapping[str, Any]) -> tuple[Decimal | None, str]:
    record = Record("", "", 0.0, reserved=Reserved.read(granted), occupied=3600.0)
    try:
        return DATED.dollars(record), ""
    except UnknownRateError as error:
        return None, f"there is no rate for {error}"
