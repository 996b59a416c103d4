"""Checks from inside a container: a function call of the deployed worker reports its view.

The report is untrusted plain data, and any part of it may be missing.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import modal

from modalflow import __version__
from modalflow.airflow_home.comparison import ComparedOption, Layers
from modalflow.operations.doctor import settings_side, versions_side
from modalflow.operations.doctor.findings import Finding, fail, ok, skip, warn
from modalflow.operations.doctor.installation_side import of_api_server, of_container
from modalflow.operations.doctor.modal_side import FAILURES
from modalflow.operations.doctor.token_side import Trial, from_container
from modalflow.operations.relay.checks import START, round_trips
from modalflow.operations.site import PATIENCE, Site, within
from modalflow.protocol.api_servers import TIMEOUT, about
from modalflow.protocol.messages import Kind, Submission
from modalflow.protocol.probe import Question
from modalflow.support.described import describe
from modalflow.support.text import ID, one_line

#: Allowed difference of clocks in seconds. Beyond it, Airflow refuses tokens as not yet or no longer valid.
_CLOCK_TOLERANCE = 10.0

#: A larger number is no time in seconds since the epoch: the last second of the year 9999.
_LARGEST = 253_402_300_799

_REACH = (
    "Set [modal_executor] execution_api_url to a URL within reach of Modal's containers, and open the firewall for it. "
    "To test a URL, use `modal shell`."
)

_RESTART = f"{START} If a relay runs, its log has the reason: it has to reach Modal and the API server. Or restart it."


@dataclass(frozen=True)
class Host:
    """This machine's side of the comparison with a container."""

    options: Sequence[ComparedOption] | None = None
    """The options of Airflow that are set here; None without Airflow."""
    packages: Mapping[str, str] = field(default_factory=dict)
    """Installed packages: name → version."""
    home: str = ""
    """The id of the Airflow home with which the container is asked."""

    def question(self, trial: Trial | None) -> Question:
        """Return the question to a container: its token, and the options to report on."""
        # A secret of the host alone is in no container, and whether a container has one of its own is of no concern.
        wanted = [option.wanted for option in self.options or () if option.travels or not option.secret]
        return Question(options=wanted) if trial is None else Question(trial.ti_id, trial.token, options=wanted)


_NO_HOST = Host()


def no_profile(profile: str, deployed: Collection[str]) -> Finding:
    """Return the finding for a requested profile without a deployment."""
    return fail(
        f"container ({profile})",
        f"profile {profile!r} is not deployed; deployed profiles: {', '.join(deployed)}",
        "Name one of these with --profile, or deploy a file with the profile: `modalflow deploy FILE`.",
    )


def examine(
    site: Site,
    profile: str,
    env: Mapping[str, str],
    timeout: float,
    trial: Trial | None = None,
    host: Host = _NO_HOST,
    relay: str = "",
) -> Iterator[Finding]:
    """Findings of one profile's container; at most ``timeout`` seconds, a cold start included.

    ``relay`` is the relay's key, if containers use the relay.
    """
    name = f"container ({profile})"
    question = host.question(trial)
    asked_at = time.time()
    began = time.monotonic()
    try:
        answer = _ask(site, profile, env, timeout, question, host.home, relay)
    except TimeoutError:
        yield fail(name, f"no container answered within {timeout:g} s{_crowd(site, profile)}", _WAITED)
        return
    except FAILURES as error:
        yield fail(name, f"the function call failed: {describe(error)}", _logs_of(site))
        return
    seen = answer.get("probe") if isinstance(answer, dict) else None
    if not isinstance(seen, dict):
        yield _too_old(name, site, answer)
        return
    places = (str(seen.get("cloud") or "").removeprefix("CLOUD_PROVIDER_").lower(), str(seen.get("region") or ""))
    where = " ".join(dict.fromkeys(place for place in places if place))
    versions = f"modalflow {seen.get('worker_version')}, Python {seen.get('python_version')}"
    yield ok(name, f"{seen.get('container_id')}{f' in {where}' if where else ''}: {versions}", time.monotonic() - began)
    if (foreign := of_container(seen)) is not None:
        yield foreign
    yield from _clock(seen, asked_at)
    view = seen.get("airflow")
    yield _airflow(view, str(seen.get("problem") or ""), site)
    if isinstance(view, dict) and view:
        absence = _absence(seen, site.deploy_command)
        yield _hostname(view.get("hostname"), str(seen.get("container_id")))
        yield _execution_api(view.get("execution_api"), relayed=bool(relay))
        yield from round_trips(view.get("execution_api"))
        view = _with_api_server(view)
        yield from _api_server(view)
        yield from of_api_server(view)
        if (finding := from_container(trial, env, view.get("token"), absence)) is not None:
            yield finding
        yield from _bundles(view.get("bundles"), site)
        yield from _remote_logging(view.get("remote_logging"), site)
        yield from versions_side.examine(seen, view.get("packages"), host.packages, site.deploy_command)
        layers = _layers(env, seen.get("variables"))
        yield from settings_side.examine(view, host.options, question.salt, layers, site.deploy_command, absence)


def _airflow(view: object, problem: str, site: Site) -> Finding:
    name = "Airflow in the container"
    version = f"Airflow {view.get('version')}" if isinstance(view, dict) and view else ""
    if problem or not version:
        what = f"{version}: {problem}" if version else problem or "the container reported nothing"
        return fail(name, what, _logs_of(site))
    return ok(name, version)


def _absence(seen: Mapping[str, Any], deploy_command: str) -> str:
    """Return why a container did not report on a check."""
    theirs = one_line(seen.get("worker_version") or "", ID)
    if seen.get("problem") or theirs == __version__:
        return "not tested: the inspection of the container ended before this check"
    return f"the worker of modalflow {theirs} has no such test, here it is {__version__}; deploy: `{deploy_command}`"


def _layers(env: Mapping[str, str], variables: object) -> Layers:
    found = variables if isinstance(variables, dict) else {}
    profile, image = ({str(name) for name in _list(found.get(layer))} for layer in ("profile", "image"))
    return Layers(frozenset(env), profile, image)


def _list(seen: object) -> list[Any]:
    return seen if isinstance(seen, list) else []


def _ask(
    site: Site, profile: str, env: Mapping[str, str], timeout: float, question: Question, home: str, relay: str
) -> Any:
    work_id = f"probe-{uuid.uuid4().hex}"
    submission = Submission(
        work_id=work_id,
        kind=Kind.PROBE,
        # An older worker refuses it, and writes why to its log.
        log_path=f"modalflow-doctor/{work_id}.log",
        partition="",
        label="probe of modalflow doctor",
        workload=question.to_json(),
        env=env,
        profile=profile,
        executor_version=__version__,
        relay=relay,
        relay_transport=site.settings.relay_transport,
        home=home,
    )
    function: Any = modal.Function.from_name(site.names.app, site.names.function(profile), **site.scope)
    call = within(PATIENCE, lambda: function.spawn(submission.to_wire()))
    try:
        return within(timeout + PATIENCE, lambda: call.get(timeout=timeout))
    except TimeoutError:
        within(PATIENCE, call.cancel)
        raise
    finally:
        _forget(site, work_id)


def _forget(site: Site, work_id: str) -> None:
    ledger: Any = modal.Dict.from_name(site.names.ledger, **site.scope)
    try:
        within(PATIENCE, lambda: ledger.pop(work_id, None))
    except FAILURES:
        # It expires later.
        return


_WAITED = (
    "Modal builds the image at the first call, and GPUs can be scarce. Try again with a longer --timeout, and check "
    "the app in Modal's dashboard."
)


def _crowd(site: Site, profile: str) -> str:
    function: Any = modal.Function.from_name(site.names.app, site.names.function(profile), **site.scope)
    try:
        stats: Any = within(PATIENCE, function.get_current_stats)
    except FAILURES:
        return ""
    return f": {stats.backlog} inputs waiting, {stats.num_total_runners} containers running"


def _logs_of(site: Site) -> str:
    environment = f" --env {site.control_plane.environment}" if site.control_plane.environment else ""
    return f"Check the container's log: `modal app logs {site.names.app}{environment}`."


def _too_old(name: str, site: Site, answer: Any) -> Finding:
    detail = str(answer.get("reason") or answer) if isinstance(answer, dict) else str(answer)
    older = f"the deployed worker is older than this modalflow {__version__} and cannot answer"
    return fail(
        name,
        f"{older}; it reported: {detail[:99]}",
        f"Deploy the worker of this modalflow: `{site.deploy_command}`.",
    )


def _clock(seen: Mapping[str, Any], asked_at: float) -> Iterator[Finding]:
    theirs, answered_at = _number(seen.get("time")), time.time()
    if theirs is None or asked_at - _CLOCK_TOLERANCE < theirs < answered_at + _CLOCK_TOLERANCE:
        return
    off = theirs - asked_at
    yield fail(
        "clocks",
        f"the container's clock is {abs(off):.0f} s {'ahead of' if off > 0 else 'behind'} this machine's: "
        "Airflow's tokens are valid for a limited time",
        "Synchronize this machine's clock with NTP.",
    )


def _number(seen: Any) -> float | None:
    """Return a number from a container's report; None for anything else and for unusable numbers."""
    if isinstance(seen, bool) or not isinstance(seen, int | float) or not -math.inf < seen < math.inf:
        return None
    return float(seen) if abs(seen) < _LARGEST else None


def _hostname(seen: Any, container_id: str) -> Finding:
    name = seen.get("name") if isinstance(seen, dict) else None
    if name == container_id:
        return ok("hostname", f"tasks report {name}")
    return fail(
        "hostname",
        f"tasks report {name or seen} instead of the container's id: Airflow could confuse two containers",
        "Remove [core] hostname_callable from [modal_executor] worker_env; the worker sets it.",
    )


def _execution_api(seen: Any, *, relayed: bool) -> Finding:
    name = "execution API"
    if not isinstance(seen, dict):
        return fail(name, "the container did not report on it", "Try again.")
    url, status, error = str(seen.get("url") or ""), seen.get("status"), str(seen.get("error") or "")
    if error and relayed and "Timeout" in error:
        waited = _number(seen.get("seconds")) or TIMEOUT
        return fail(name, f"no relay answered the container within {waited:.0f} s: tasks wait for one", _RESTART)
    if error:
        return fail(name, f"the container cannot reach {url or 'it'}: {error}", _advice_unreachable(url, error))
    if status != 200:
        return fail(name, f"{url}health answers the container with {status}", _advice_status(status, url))
    if "healthy" not in str(seen.get("text")):
        detail = str(seen.get("text"))[:80]
        return fail(name, f"{url}health has an unexpected answer: {detail!r}", _advice_status(404, url))
    return ok(name, f"reached from the container at {url}", _number(seen.get("seconds")))


def _with_api_server(view: Mapping[str, Any]) -> Mapping[str, Any]:
    """Ask the API server from this machine what a container cannot ask it: a relay passes the Execution API alone."""
    api = view.get("execution_api")
    if not (isinstance(api, dict) and api.get("relay")):
        return view
    return {**view, "execution_api": {**api, **about(str(api.get("url") or ""))}}


def _api_server(view: Mapping[str, Any]) -> Iterator[Finding]:
    """Check the version and the clock of the API server against the container's."""
    api, token = view.get("execution_api"), view.get("token")
    theirs, ours = str(api.get("version") or "") if isinstance(api, dict) else "", str(view.get("version") or "")
    if theirs and theirs.split(".")[:2] != ours.split(".")[:2]:
        yield fail(
            "API server",
            f"it is Airflow {theirs[:40]}, the container's is {ours[:40]}: they may be incompatible",
            "Run the API server, the scheduler and the worker with the same minor version of Airflow.",
        )
    elif theirs:
        yield ok("API server", f"Airflow {theirs[:40]}")
    off = token.get("clock") if isinstance(token, dict) else None
    if isinstance(off, float | int) and abs(off) > _CLOCK_TOLERANCE:
        yield fail(
            "API server's clock",
            f"it is {abs(off):.0f} s {'ahead of' if off > 0 else 'behind'} the container's: Airflow's tokens are valid "
            "for a limited time",
            "Synchronize the clock of the API server's machine with NTP.",
        )


def _advice_unreachable(url: str, error: str) -> str:
    host = urlsplit(url).hostname or ""
    if "Name or service not known" in error or "nodename nor servname" in error or "Temporary failure in name" in error:
        return f"Modal cannot resolve {host!r}: use a public name. {_REACH}"
    if "certificate" in error.lower():
        return "Give the worker the certificate of the authority ([api] ssl_cert), or use a publicly trusted one."
    if "refused" in error:
        return f"No server listens at this address: check that the API server is up. {_REACH}"
    return _REACH


def _advice_status(status: object, url: str) -> str:
    if status == 404:
        return f"This is not the Execution API: expected a URL with /execution/ at its end, not {url}."
    if status in (401, 403, 407):
        return "A proxy in front of the API server asks for a login: let /execution/ through (tasks have tokens)."
    return "Check the log of the API server, and any proxy in front of it."


def _bundles(seen: Any, site: Site) -> Iterator[Finding]:
    for bundle in seen if isinstance(seen, list) else []:
        if not isinstance(bundle, dict):
            continue
        name = f"DAG bundle {bundle.get('name')}" if bundle.get("name") else "DAG bundles"
        if bundle.get("error") and bundle.get("connection"):
            why = f"only a task can get connection {bundle['connection']!r} from Airflow, with its token"
            yield skip(name, f"not tested with its credentials: {why}")
        elif bundle.get("error"):
            advice = f"Run `{site.deploy_command}` on the machine with its folder, or `modalflow sync` for the Volume."
            yield fail(name, f"the container cannot read it: {bundle['error']}", advice)
        elif not bundle.get("files"):
            advice = f"Add DAG files, and deploy again: `{site.deploy_command}`."
            yield warn(name, f"there is no DAG file in {bundle.get('path')}", advice)
        else:
            files = f"{bundle['files']} Python file{'' if bundle['files'] == 1 else 's'} in {bundle.get('path')}"
            yield ok(name, files, _number(bundle.get("seconds")))
    if not isinstance(seen, list):
        yield skip("DAG bundles", "the container failed before this check")


def _remote_logging(seen: Any, site: Site) -> Iterator[Finding]:
    if not isinstance(seen, dict) or not seen:
        return
    if seen.get("handler"):
        yield ok("task logs in the container", f"uploaded by {seen['handler']}, from [logging]")
        return
    why = seen.get("error") or "its Airflow has no handler for [logging] remote_base_log_folder"
    yield fail(
        "task logs in the container",
        f"nothing uploads them: {why}",
        f"Add the provider, or the module of logging_config_class, to the worker's image: `{site.deploy_command}`.",
    )


def unavailable(why: str) -> Iterator[Finding]:
    """Return skipped findings with a reason."""
    for name in ("container", "execution API", "DAG bundles"):
        yield skip(name, why)
