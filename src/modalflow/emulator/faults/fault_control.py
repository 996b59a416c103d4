"""The client of the control endpoint: it adds, lists and clears the faults of a running control plane.

Owns requests and their results. It needs only an address and a token, so any process can use it.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import quote, urlsplit

from modalflow.emulator.faults.injection import Injection
from modalflow.emulator.faults.spec.kinds import Scope

SECONDS = 30.0


class FaultError(RuntimeError):
    """The control plane refused a request. The text says why, and what to do."""


@dataclass(frozen=True)
class Fault:
    """A rule and its effects so far; ``last`` holds its newest hundred injections."""

    id: str
    spec: str
    seen: int
    happened: int
    last: tuple[Injection, ...]


@dataclass(frozen=True)
class RunningContainer:
    """A living container: ``starting``, or ``ready`` with the inputs that it runs."""

    container_id: str
    app: str
    function: str
    state: str
    inputs: tuple[str, ...]
    pid: int | None


Faults: TypeAlias = list[Fault]
Containers: TypeAlias = list[RunningContainer]
ContainerIds: TypeAlias = list[str]


class FaultControl:
    """The faults of one control plane.

    local.faults.add("FunctionMap:unavailable-after,count=1")
    local.faults.now("preempt", app="etl", function="load")
    assert local.faults.list()[0].happened == 1
    """

    def __init__(self, control_url: str, token_id: str, token_secret: str) -> None:
        self._url = control_url
        self._headers = {"Authorization": f"Bearer {token_id}:{token_secret}", "Content-Type": "application/json"}

    def __repr__(self) -> str:
        return f"FaultControl({self._url!r})"

    def add(self, spec: str) -> Fault:
        """Add a fault, effective at once; FaultError for an invalid specification."""
        return _fault(self._send("POST", "/control/faults", {"spec": spec}))

    def list(self) -> Faults:
        """Return the faults, oldest first; those of the command line come before the others."""
        return [_fault(each) for each in self._send("GET", "/control/faults")["faults"]]

    def clear(self, ids: Iterable[str] | None = None) -> Faults:
        """Remove the faults with these ids, or all; return them as they were at the end."""
        chosen = None if ids is None else [f"id={quote(each)}" for each in ids]
        if chosen == []:
            return []
        query = "&".join(chosen or ())
        return [_fault(each) for each in self._send("DELETE", f"/control/faults?{query}")["faults"]]

    def now(
        self,
        kind: str,
        value: str = "",
        *,
        container: str = "",
        app: str = "",
        function: str = "",
        **options: str | int,
    ) -> ContainerIds:
        """Inject a fault once, now: ``kill``, ``freeze`` or ``preempt`` containers, or ``stop`` the world.

        Name the containers by their id, or by the names of an app and a function (wildcards allowed, ``C.*`` for a
        class). Options are those of the kind, with ``_`` for ``-``; ``count=1`` selects the oldest container only.
        Return the ids of the containers; FaultError if there is none. You can also pass a whole specification as the
        first argument.
        """
        if ":" in kind:
            spec = kind
        else:
            target = Scope.CONTAINER.value
            if kind == "stop":
                target = Scope.WORLD.value
            elif container:
                target += f"/{container}"
            elif app or function:
                target += f"/{app or '*'}" + (f"/{function}" if function else "")
            spec = f"{target}:{kind}" + (f"={value}" if value else "")
            spec += "".join(f",{name.replace('_', '-')}={given}" for name, given in options.items())
        return [str(each) for each in self._send("POST", "/control/faults/now", {"spec": spec})["containers"]]

    def containers(self) -> Containers:
        """Return the living containers, oldest first."""
        found = self._send("GET", "/control/containers")["containers"]
        return [RunningContainer(**{**each, "inputs": tuple(each["inputs"])}) for each in found]

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        if not self._url:
            raise FaultError("This control plane has no control endpoint: it was started by an older modalflow")
        where = urlsplit(self._url)
        connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=SECONDS)
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None, self._headers)
            answer = connection.getresponse()
            text = answer.read().decode()
        except OSError as error:
            raise FaultError(f"The control endpoint at {self._url} does not answer ({error})") from error
        finally:
            connection.close()
        if answer.status != http.client.OK:
            raise FaultError(text)
        return json.loads(text)


def _fault(body: dict[str, Any]) -> Fault:
    return Fault(**{**body, "last": tuple(Injection(**each) for each in body["last"])})
