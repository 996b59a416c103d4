"""Whether this machine, the executor, the containers and the API server import the same modalflow, and this one.

The public package index has another program of the same name and import name; see ``support.installation``. Reports of
a container or an API server are untrusted data, and every part may be missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from modalflow import __version__
from modalflow.names import VERSION_PATH
from modalflow.operations.doctor.findings import Finding, fail, ok, warn
from modalflow.protocol.snapshot import Snapshot
from modalflow.support import installation

_REMOVE_FROM_IMAGE = (
    "Remove modalflow from the requirements file or the image: `modalflow deploy` adds this project's own code to "
    "every image."
)


def here() -> Finding:
    """Return the finding about the modalflow of this process."""
    found = installation.problem()
    package = installation.installed()
    if found is None:
        return ok("modalflow", f"{__version__}, imported from {installation.imported_from()}")
    foreign = package is not None and not package.ours
    return fail("modalflow", found.what, found.fix) if foreign else warn("modalflow", found.what, found.fix)


def of_executor(snapshot: Snapshot) -> Finding | None:
    """Return an executor's report on a problem with its modalflow; None if there is none."""
    if not snapshot.installation:
        return None
    return warn(
        "executor's modalflow",
        f"{snapshot.host} (process {snapshot.pid}): {snapshot.installation}",
        f"Fix it on that machine and restart the scheduler; see {installation.PAGE}.",
    )


def of_container(seen: Mapping[str, Any]) -> Finding | None:
    """Return the finding about another modalflow in a container's image; None if there is none."""
    package = seen.get("installed")
    if not isinstance(package, dict):
        return None
    version, folder = str(package.get("version"))[:40], str(package.get("folder"))[:200]
    if package.get("ours") is not True:
        return warn(
            "container's modalflow",
            f"the image has another program named modalflow, version {version}, in {folder}. The worker imports this "
            f"project's from {str(seen.get('imported_from'))[:200]}; programs that a task starts may import the other",
            _REMOVE_FROM_IMAGE,
        )
    if version != seen.get("worker_version"):
        return warn(
            "container's modalflow",
            f"the image has modalflow {version} in {folder}, the worker imports {seen.get('worker_version')}",
            _REMOVE_FROM_IMAGE,
        )
    return None


def of_api_server(view: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield the finding about the modalflow of the container's API server, if the container requested it."""
    api = view.get("execution_api")
    if not isinstance(api, dict) or not api.get("version") or "modalflow" not in api:
        # An older worker, or an API server with only the Execution API.
        return
    name, theirs, package = "API server's modalflow", str(api["modalflow"] or "")[:40], api.get("installed")
    if not theirs:
        yield warn(
            name,
            f"the API server does not answer at {VERSION_PATH}: it imports another program named modalflow, a version "
            "before 0.5.0, or none, and may not show the logs of tasks",
            f"Install modalflow {__version__} where the API server runs, and restart it; see {installation.PAGE}.",
        )
    elif isinstance(package, dict) and (package.get("ours") is False or package.get("version") != theirs):
        kind = "another program of that name, version" if package.get("ours") is False else "version"
        other = f"{kind} {str(package.get('version'))[:40]}"
        yield warn(
            name,
            f"the API server imports modalflow {theirs}, but {other} is installed there",
            f"Run `pip uninstall modalflow` there, then install this project's wheel; see {installation.PAGE}.",
        )
    elif theirs != __version__:
        yield warn(
            name,
            f"the API server imports modalflow {theirs}, here it is {__version__}",
            f"Install the same version everywhere, and restart the API server; see {installation.PAGE}.",
        )
    else:
        yield ok(name, theirs)
