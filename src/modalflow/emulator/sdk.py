"""The default server of Modal's SDK in the process that starts a LocalModal.

The SDK keeps one default client for each process, made at the first use from the environment and ~/.modal.toml. A new
server alone changes nothing for a process that has used Modal before: its calls would still reach the user's account.
This module switches the default server, and back. Meanwhile it refuses calls to any other server: tests must not reach
a real account, whichever handles they use.

It is on the client's side of a LocalModal; the control plane itself does not use it. It does not import the SDK: it
changes an SDK that this process has imported, and a later import reads the variables. Importing this module makes
forked children of the process safe; see forks.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import sys
import threading
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modalflow.support import forks as forks
from modalflow.support import replaced_in_sdk as rows
from modalflow.support.replaced import assign

#: Seconds for a switch on the SDK's event loop, which waits for no network.
EXCHANGE_SECONDS = 30.0


class WrongServerError(RuntimeError):
    """A call through a handle or client of a server that does not run in this process."""


@dataclass(eq=False)
class DefaultServer:
    """A default server of the SDK: variables, configuration, client. ``url`` is empty for the one of the user."""

    url: str = ""
    variables: Mapping[str, str | None] = field(default_factory=dict, repr=False)
    """Variables to set; None removes one."""
    thread: threading.Thread = field(default_factory=threading.current_thread)
    config: dict[str, Any] | None = field(default=None, repr=False)
    """Attributes of modal.config; None if it must read the user's file."""
    client: Any = None


_lock = threading.RLock()
_before = DefaultServer()
_stack: list[DefaultServer] = []
"""The defaults of the running LocalModals; the last one counts."""
_running: set[str] = set()
"""The URLs of all LocalModals of this process, also those that are not the default."""
_ended: dict[str, DefaultServer] = {}
"""The LocalModals that have ended: URL → the default before them."""


# --- the functions for LocalModal ---


def check() -> None:
    """Raise RuntimeError if a LocalModal of another thread is the default: the SDK has one for the whole process."""
    if _stack and (owner := _stack[-1].thread) is not threading.current_thread() and owner.is_alive():
        raise RuntimeError(
            f"The LocalModal at {_stack[-1].url} is the SDK's default server, started by thread {owner.name!r}. The "
            "SDK has one default for the whole process: stop that one first, or start this one as "
            "LocalModal(as_default=False) and use it from a process with its `env`."
        )


def started(url: str) -> None:
    """Note a server of this process: explicit clients may use it."""
    with _lock:
        _running.add(url)
        _ended.pop(url, None)


def ended(url: str, *, for_good: bool) -> None:
    """Note the end of a server. If it ended ``for_good``, calls through its handles fail with that reason."""
    with _lock:
        _running.discard(url)
        if for_good:
            _ended[url] = _before


def enter(url: str, variables: Mapping[str, str]) -> DefaultServer:
    """Make a server the SDK's default, in this process and its children; RuntimeError as ``check``."""
    with _lock:
        check()
        if not _stack:
            _remember(variables)
        mine = DefaultServer(url, dict(variables), config=_blank_config())
        _exchange(_stack[-1] if _stack else _before, mine)
        _stack.append(mine)
        return mine


def leave(mine: DefaultServer) -> None:
    """Remove a default server; if it was the last one, the one before it counts again."""
    with _lock:
        was_last = _stack[-1] is mine
        _stack.remove(mine)
        if was_last:
            _exchange(mine, _stack[-1] if _stack else _before)
        _release(mine.client)


# --- variables and configuration ---


def _remember(variables: Mapping[str, str]) -> None:
    """Note the settings without any LocalModal."""
    global _before
    dead = _ended.get(os.environ.get("MODAL_SERVER_URL", "").rstrip("/"))
    # For example, pytest's monkeypatch may have restored the variables of a server that has ended.
    old = dead.variables if dead else {}
    _before = DefaultServer(variables={name: old.get(name) if dead else os.environ.get(name) for name in variables})
    module = _loaded("modal.config")
    _before.config = {row.attribute: getattr(module, row.attribute) for row in _CONFIG} if module else None


#: The variables that modal.config sets when it is imported.
_CONFIG = (rows.CONFIG_PATH, rows.USER_CONFIG, rows.PROFILE)


def _blank_config() -> dict[str, Any]:
    """Return the variables of modal.config for a LocalModal: profiles of the user do not count."""
    return {"user_config_path": os.devnull, "_user_config": {}, "_profile": "default"}


def _apply(new: DefaultServer) -> None:
    """Set the environment variables, and the configuration that an imported SDK has read."""
    for name, value in {**_before.variables, **new.variables}.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    module = _loaded("modal.config")
    if module is None:
        return
    if new.config is not None:
        for row in _CONFIG:
            assign(row, module, new.config[row.attribute])
        return
    # The SDK was imported while a LocalModal was the default: read the configuration of the user now.
    config_path = os.environ.get("MODAL_CONFIG_PATH") or str(Path("~/.modal.toml").expanduser())
    assign(rows.CONFIG_PATH, module, config_path)
    assign(rows.USER_CONFIG, module, module._read_user_config())
    assign(rows.PROFILE, module, os.environ.get("MODAL_PROFILE") or module._config_active_profile())


# --- the SDK's default client ---


def _exchange(old: DefaultServer, new: DefaultServer) -> None:
    """Replace a default server, while nothing makes a default client from the old variables."""
    if _loaded("modal.client") is None:
        _apply(new)
        return
    _guard()

    async def exchange() -> None:
        async with _client_class()._client_from_env_lock or contextlib.nullcontext():
            _exchange_now(old, new)

    if not _on_loop_of_sdk(exchange):
        _exchange_now(old, new)


def _exchange_now(old: DefaultServer, new: DefaultServer) -> None:
    client_class = _client_class()
    old.client = client_class._client_from_env
    assign(rows.DEFAULT_CLIENT, client_class, new.client)
    getattr(_loaded("modal._environments"), "ENVIRONMENT_CACHE", {}).clear()
    _apply(new)
    if old.client is not None:
        _dehydrate_handles(old.client)


def _dehydrate_handles(client: Any) -> None:
    """Make handles of the default client look up their objects again, with the new default client.

    A Dict that a module names is another object in each server. Handles without a name (functions of a running app, an
    object by its id) stay as they are, and calls through them are refused.
    """
    handles = getattr(_loaded("modal._object"), "_Object", None)
    if handles is None:
        return
    # Not the list of all objects: it would hold a tuple that another thread is still building, which then fails.
    holders = gc.get_referrers(client)
    for found in [*holders, *gc.get_referrers(*(each for each in holders if type(each) is dict))]:
        if issubclass(type(found), handles):
            state = vars(found)
            if state.get("_client") is client and state.get("_hydrate_lazily"):
                # Its client stays, for a call that another thread may make at this moment.
                assign(rows.IS_HYDRATED, found, False)


def _release(client: Any) -> None:
    """Close the connections of a default client, but not the client: calls through its handles name the reason."""
    if client is None:
        return

    async def release() -> None:
        if (unregister := getattr(client, "_shutdown_unregister", None)) is not None:
            unregister()
            assign(rows.CLIENT_UNREGISTER, client, None)
        # Before modal 1.6 the client can only be closed.
        await (client._release_connections() if hasattr(client, "_release_connections") else client._close())
        assign(rows.CLIENT_CLOSED, client, False)

    held = _client_class()._client_from_env
    _on_loop_of_sdk(release)
    # Both ways also remove the default client.
    assign(rows.DEFAULT_CLIENT, _client_class(), held)


def _on_loop_of_sdk(make: Callable[[], Coroutine[Any, Any, None]]) -> bool:
    """Run a coroutine on the SDK's event loop; return False, without running it, if the loop does not run."""
    loop = getattr(_loaded("modal._utils.async_utils").synchronizer, "_loop", None)
    if loop is None or not loop.is_running():
        return False
    running = asyncio.run_coroutine_threadsafe(make(), loop)
    try:
        running.result(EXCHANGE_SECONDS)
    except TimeoutError:
        # It must not run later: the caller continues without it.
        running.cancel()
        raise TimeoutError(f"Modal's SDK was busy making a client for {EXCHANGE_SECONDS:g} s") from None
    return True


# --- calls to other servers ---


def _guard() -> None:
    """Make every call of the SDK check its server first. This is done once, and stays."""
    client_class = _client_class()
    original = client_class._get_channel
    if getattr(original, "of_modalflow", False):
        return

    async def get_channel(self: Any, server_url: str) -> Any:
        if refusal := _refusal(self.server_url.rstrip("/")):
            raise WrongServerError(refusal)
        return await original(self, server_url)

    get_channel.of_modalflow = True  # type: ignore[attr-defined]
    assign(rows.GET_CHANNEL, client_class, get_channel)


def _refusal(url: str) -> str:
    """Return why a client of that server may not make a call now; empty if it may."""
    if url in _running:
        return ""
    if url in _ended:
        return (
            f"This handle or client belongs to the LocalModal at {url}, which has ended. Create it again where you use "
            "it, for example with modal.Function.from_name(…)."
        )
    if _stack:
        return (
            f"The LocalModal at {_stack[-1].url} is the SDK's default server, but this handle or client was made for "
            f"{url}. Create it again while the LocalModal runs, for example with modal.Function.from_name(…), or stop "
            "the LocalModal first."
        )
    return ""


def _client_class() -> Any:
    return _loaded("modal.client")._Client


def _loaded(module: str) -> Any:
    """Return a module of the SDK if this process has imported it."""
    return sys.modules.get(module)
