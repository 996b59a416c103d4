"""The DAG bundles of a container: in its image, in a bucket, or fetched from the Volume.

Works in the container's main process, once for each version, before a task's own process exists. The task then finds a
complete folder and needs no access to Modal. Must not import Airflow.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from modal import exception

from modalflow.bundles.configured import VOLUME_BUNDLE
from modalflow.bundles.manifest import File, Manifest
from modalflow.bundles.store import Store
from modalflow.bundles.trees import Trees
from modalflow.errors import BundleError
from modalflow.support.backoff import Backoff
from modalflow.support.described import describe, words_of

_T = TypeVar("_T")

#: Seconds for which the current version of a bundle is cached.
_POINTER_TTL = 1.0

#: The attempts of a call to Modal, and the seconds before the second one.
_TRIES = 4
_PAUSE, _LONGEST_PAUSE = 0.5, 4.0


@dataclass(frozen=True)
class BundleRequest:
    """The bundle that a workload needs."""

    name: str
    version: str | None


def bundles_of(workload: str | None) -> list[BundleRequest]:
    """Return the bundles that a workload names: one, or none if the workload cannot be read."""
    try:
        info = json.loads(workload or "null")["bundle_info"]
        return [BundleRequest(str(info["name"]), str(info["version"]) if info.get("version") else None)]
    except (AttributeError, KeyError, TypeError, ValueError):
        return []


class DagBundles:
    """The DAG bundles of a container."""

    def __init__(self, store: Store, trees: Trees, fixed: Mapping[str, str], synced: frozenset[str]) -> None:
        """``fixed`` are the local bundles that are in a folder of the container: name → folder. ``synced`` are those
        that `modalflow sync` uploads to the Volume."""
        self._store, self._trees, self._synced = store, trees, synced
        self.fixed = fixed
        self._current: dict[str, tuple[float, str]] = {}

    @asynccontextmanager
    async def folders_for(
        self, requested: Sequence[BundleRequest], bundles: Mapping[str, str]
    ) -> AsyncIterator[dict[str, str]]:
        """Yield local folders of bundles, name → folder: the container's own, and those fetched from the Volume.

        ``bundles`` are those of Airflow's configuration: name → class. The folders exist at least as long as the
        context. Raises BundleError if a version cannot be fetched.
        """
        folders = dict(self.fixed)
        requested = [each for each in requested if self._is_on_volume(each.name, bundles)]
        if not requested:
            yield folders
            return
        kept = ExitStack()
        # Shielded from a cancellation: the thread goes on, and the contexts that it enters must be left.
        fetching = asyncio.ensure_future(asyncio.to_thread(self._fetch_all, requested, kept))
        try:
            yield folders | await asyncio.shield(fetching)
        finally:
            fetching.add_done_callback(lambda done: _leave(done, kept))

    async def newest(self, bundles: Mapping[str, str]) -> list[BundleRequest]:
        """Return all bundles on the Volume that can be fetched."""
        named = [BundleRequest(name, None) for name in bundles if self._is_on_volume(name, bundles)]
        found = await asyncio.gather(
            *(asyncio.to_thread(self._newest, each.name) for each in named), return_exceptions=True
        )
        return [each for each, version in zip(named, found, strict=True) if not isinstance(version, BaseException)]

    def _fetch_all(self, requested: Sequence[BundleRequest], kept: ExitStack) -> dict[str, str]:
        return {each.name: str(self._fetch(each, kept)) for each in requested}

    def _is_on_volume(self, name: str, bundles: Mapping[str, str]) -> bool:
        return bundles.get(name) == VOLUME_BUNDLE or name in self._synced

    def _fetch(self, request: BundleRequest, kept: ExitStack) -> Path:
        fixed = request.version if request.name not in self._synced else None
        version = fixed or self._newest(request.name)

        def manifest() -> Manifest:
            return _retried(lambda: self._store.manifest(request.name, version))

        def content(file: File) -> bytes:
            return _retried(lambda: self._store.content(file))

        try:
            return kept.enter_context(self._trees.use(request.name, version, manifest, content))
        except OSError as error:
            raise BundleError(
                f"DAG bundle {request.name!r} could not be written to the container's disk: {words_of(error)}."
            ) from error

    def _newest(self, name: str) -> str:
        known = self._current.get(name)
        if known is None or time.monotonic() - known[0] > _POINTER_TTL:
            asked = time.monotonic()
            current = _retried(lambda: self._store.current(name))
            if current is None:
                raise BundleError(
                    f"DAG bundle {name!r} is not on Volume {self._store.name}. Upload it with `modalflow sync`."
                )
            known = self._current[name] = (asked, current.version)
        return known[1]


def _retried(call: Callable[[], _T]) -> _T:
    """Call Modal, with a few retries; raise BundleError if it never succeeds."""
    backoff = Backoff(_PAUSE, _LONGEST_PAUSE)
    while True:
        try:
            return call()
        except (exception.Error, TimeoutError, ConnectionError) as error:
            pause = backoff.next()
            if backoff.failures == _TRIES:
                raise BundleError(f"Modal did not return the DAG files: {describe(error)}") from error
            time.sleep(pause)


def _leave(done: asyncio.Future[dict[str, str]], kept: ExitStack) -> None:
    if not done.cancelled():
        done.exception()  # The caller has it, or was cancelled.
    # Leaving may remove folders, which blocks.
    asyncio.get_running_loop().run_in_executor(None, kept.close)
