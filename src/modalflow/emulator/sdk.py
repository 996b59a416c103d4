"""Modal's SDK in the process that starts a LocalModal: which server it talks to by default.

The SDK keeps one default client for each process, made at its first use from the environment and ~/.modal.toml. So a
new server alone changes nothing for a process that has used Modal before: its calls go on to the user's account. This
module switches the default and back. Meanwhile it refuses calls that would go to any other server: tests must not reach
a real account, whatever their handles are of.

Part of the client's side of a LocalModal, as its variables are; the control plane itself never comes here. It imports
nothing of the SDK: it acts on one that this process has imported, and a later import reads the variables. Importing it
makes forked children of the process safe; see forks.
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

#: Seconds for an exchange on the SDK's event loop, where nothing waits for a network.
EXCHANGE_SECONDS = 30.0


class WrongServerError(RuntimeError):
    """A call through a handle or client of another server than those that run in this process."""


@dataclass(eq=False)
class Default:
    """What a server is to the SDK: variables, configuration, default client. ``url`` is empty for what was before."""

    url: str = ""
    variables: Mapping[str, str | None] = field(default_factory=dict, repr=False)
    """Variables to set; None for one that is not to be there."""
    thread: threading.Thread = field(default_factory=threading.current_thread)
    config: dict[str, Any] | None = field(default=None, repr=False)
    """Attributes of modal.config; None if it must read the user's file."""
    client: Any = None


_lock = threading.RLock()
_before = Default()
_stack: list[Default] = []
"""The defaults of the running LocalModals; the last one holds."""
_running: set[str] = set()
"""URLs of all LocalModals of this process, defaults or not."""
_ended: dict[str, Default] = {}
"""Of those that have ended: URL → what was before them."""


# --- what LocalModal calls ---


def check() -> None:
    """Raise RuntimeError if a LocalModal of another thread is the default: the SDK has one for the whole process."""
    if _stack and (owner := _stack[-1].thread) is not threading.current_thread() and owner.is_alive():
        raise RuntimeError(
            f"The LocalModal at {_stack[-1].url} is the SDK's default server, started by thread {owner.name!r}. The "
            "SDK has one default for the whole process: stop that one first, or start this one as "
            "LocalModal(as_default=False) and use it from a process with its `env`."
        )


def started(url: str) -> None:
    """Note a server of this process, to which explicit clients may talk."""
    with _lock:
        _running.add(url)
        _ended.pop(url, None)


def ended(url: str, *, for_good: bool) -> None:
    """Note the end of a server. If it does not come back at that address, handles of it say so when they are used."""
    with _lock:
        _running.discard(url)
        if for_good:
            _ended[url] = _before


def enter(url: str, variables: Mapping[str, str]) -> Default:
    """Make a server the SDK's default, in this process and in those that it starts; RuntimeError as ``check``."""
    with _lock:
        check()
        if not _stack:
            _remember(variables)
        mine = Default(url, dict(variables), config=_blank_config())
        _exchange(_stack[-1] if _stack else _before, mine)
        _stack.append(mine)
        return mine


def leave(mine: Default) -> None:
    """Take a default back: the one before it holds again, if it was the last one."""
    with _lock:
        was_last = _stack[-1] is mine
        _stack.remove(mine)
        if was_last:
            _exchange(mine, _stack[-1] if _stack else _before)
        _release(mine.client)


# --- variables and configuration ---


def _remember(variables: Mapping[str, str]) -> None:
    """Note what holds without any LocalModal."""
    global _before
    dead = _ended.get(os.environ.get("MODAL_SERVER_URL", "").rstrip("/"))
    # Something else, such as pytest's monkeypatch, may have put back the variables of a server that has ended.
    old = dead.variables if dead else {}
    _before = Default(variables={name: old.get(name) if dead else os.environ.get(name) for name in variables})
    module = _loaded("modal.config")
    _before.config = {name: getattr(module, name) for name in _CONFIG} if module else None


#: What modal.config reads when it is imported.
_CONFIG = ("user_config_path", "_user_config", "_profile")


def _blank_config() -> dict[str, Any]:
    """Return what modal.config reads with the variables of a LocalModal: no profile of the user's counts."""
    return {"user_config_path": os.devnull, "_user_config": {}, "_profile": "default"}


def _apply(new: Default) -> None:
    """Set the variables, and what the SDK has read of such when it was imported."""
    for name, value in {**_before.variables, **new.variables}.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    module = _loaded("modal.config")
    if module is None:
        return
    if new.config is not None:
        for name, value in new.config.items():
            setattr(module, name, value)
        return
    # The SDK was imported while a LocalModal was the default: now it reads what it would have read without.
    module.user_config_path = os.environ.get("MODAL_CONFIG_PATH") or str(Path("~/.modal.toml").expanduser())
    module._user_config = module._read_user_config()
    module._profile = os.environ.get("MODAL_PROFILE") or module._config_active_profile()


# --- the SDK's default client ---


def _exchange(old: Default, new: Default) -> None:
    """Put a default in another's place, while nothing makes a default client of the old variables."""
    if _loaded("modal.client") is None:
        _apply(new)
        return
    _guard()

    async def exchange() -> None:
        async with _client_class()._client_from_env_lock or contextlib.nullcontext():
            _exchange_now(old, new)

    if not _on_loop_of_sdk(exchange):
        _exchange_now(old, new)


def _exchange_now(old: Default, new: Default) -> None:
    client_class = _client_class()
    old.client, client_class._client_from_env = client_class._client_from_env, new.client
    getattr(_loaded("modal._environments"), "ENVIRONMENT_CACHE", {}).clear()
    _apply(new)
    if old.client is not None:
        _let_go_of(old.client)


def _let_go_of(client: Any) -> None:
    """Let handles that were looked up by the default client be looked up anew, by the one that is the default then.

    As with a handle that was never used: a Dict that a module names is one in each server. What has no name (a running
    app's functions, an object by its id) stays what it is, and a call through it is refused.
    """
    handles = getattr(_loaded("modal._object"), "_Object", None)
    if handles is None:
        return
    for found in gc.get_objects():
        if issubclass(type(found), handles):
            state = vars(found)
            if state.get("_client") is client and state.get("_hydrate_lazily"):
                # Its client stays, for a call that another thread makes through it at this moment.
                found._is_hydrated = False


def _release(client: Any) -> None:
    """Close the connections of a default client whose server ends. It is not closed: its handles say why they end."""
    if client is None:
        return

    async def release() -> None:
        if (unregister := getattr(client, "_shutdown_unregister", None)) is not None:
            unregister()
            client._shutdown_unregister = None
        # Before modal 1.6 there is no other way than to close it.
        await (client._release_connections() if hasattr(client, "_release_connections") else client._close())
        client._closed = False

    held = _client_class()._client_from_env
    _on_loop_of_sdk(release)
    # Either way of releasing a client also takes the default away.
    _client_class()._client_from_env = held


def _on_loop_of_sdk(make: Callable[[], Coroutine[Any, Any, None]]) -> bool:
    """Run a coroutine where the SDK's clients live; False, without having run it, if nothing runs there."""
    loop = getattr(_loaded("modal._utils.async_utils").synchronizer, "_loop", None)
    if loop is None or not loop.is_running():
        return False
    running = asyncio.run_coroutine_threadsafe(make(), loop)
    try:
        running.result(EXCHANGE_SECONDS)
    except TimeoutError:
        # It must not happen later: the caller goes on without it.
        running.cancel()
        raise TimeoutError(f"Modal's SDK was busy making a client for {EXCHANGE_SECONDS:g} s") from None
    return True


# --- calls to other servers ---


def _guard() -> None:
    """Let every call of the SDK ask first whether its server is the right one. Done once; it stays."""
    client_class = _client_class()
    original = client_class._get_channel
    if getattr(original, "of_modalflow", False):
        return

    async def get_channel(self: Any, server_url: str) -> Any:
        if refusal := _refusal(self.server_url.rstrip("/")):
            raise WrongServerError(refusal)
        return await original(self, server_url)

    get_channel.of_modalflow = True  # type: ignore[attr-defined]
    client_class._get_channel = get_channel


def _refusal(url: str) -> str:
    """Why a client of that server may not make a call now; empty if it may."""
    if url in _running:
        return ""
    if url in _ended:
        return (
            f"This handle or client belongs to the LocalModal at {url}, and that has ended. Create it again, "
            "for example with modal.Function.from_name(…)."
        )
    if _stack:
        return (
            f"The LocalModal at {_stack[-1].url} is the SDK's default server, but this handle or client belongs to "
            f"{url}. Create it again while the LocalModal runs, for example with modal.Function.from_name(…), or stop "
            "the LocalModal first."
        )
    return ""


def _client_class() -> Any:
    return _loaded("modal.client")._Client


def _loaded(module: str) -> Any:
    """A module of the SDK if this process has imported it."""
    return sys.modules.get(module)
