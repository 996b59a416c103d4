"""Where the DAG bundle of a workload is in this container: in the image, in a bucket, or brought from the Volume.

Works in the container's main process, once for each version, before a task's own process exists: that one finds a
folder that is complete, and has no business with Modal. Must not import Airflow.
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
from modalflow.support.described import describe, words_of

_T = TypeVar("_T")

#: Seconds for which the current version of a bundle is believed to be that.
_POINTER_TTL = 1.0

#: How often Modal is asked, and the seconds between.
_TRIES = 4
_PAUSE = 0.5


@dataclass(frozen=True)
class Wanted:
    """The bundle of a workload."""

    name: str
    version: str | None


def wanted_by(workload: str | None) -> list[Wanted]:
    """The bundles that a workload names: one, or none where it cannot be read."""
    try:
        info = json.loads(workload or "null")["bundle_info"]
        return [Wanted(str(info["name"]), str(info["version"]) if info.get("version") else None)]
    except (AttributeError, KeyError, TypeError, ValueError):
        return []


class Dags:
    """The DAG bundles of a container."""

    def __init__(self, store: Store, trees: Trees, fixed: Mapping[str, str], synced: frozenset[str]) -> None:
        """``fixed`` are the local bundles that are in a folder of the container's: name → folder. ``synced`` are those
        that `modalflow sync` brings to the Volume."""
        self._store, self._trees, self._synced = store, trees, synced
        self.fixed = fixed
        self._current: dict[str, tuple[float, str]] = {}

    @asynccontextmanager
    async def folders_for(self, wanted: Sequence[Wanted], bundles: Mapping[str, str]) -> AsyncIterator[dict[str, str]]:
        """Local folders of bundles, name → folder: the container's own, and what is wanted of those on the Volume.

        ``bundles`` are those of Airflow's configuration: name → class. What is there stays there for as long as the
        context does. Raises BundleError where a version cannot be had.
        """
        folders = dict(self.fixed)
        wanted = [each for each in wanted if self._is_on_volume(each.name, bundles)]
        if not wanted:
            yield folders
            return
        kept = ExitStack()
        # Not ended by a cancellation: a thread cannot be, and what it enters must be left.
        bringing = asyncio.ensure_future(asyncio.to_thread(self._bring_all, wanted, kept))
        try:
            yield folders | await asyncio.shield(bringing)
        finally:
            bringing.add_done_callback(lambda done: _leave(done, kept))

    async def newest(self, bundles: Mapping[str, str]) -> list[Wanted]:
        """The bundles on the Volume that can be had, for whoever wants to see all of them."""
        named = [Wanted(name, None) for name in bundles if self._is_on_volume(name, bundles)]
        found = await asyncio.gather(
            *(asyncio.to_thread(self._newest, each.name) for each in named), return_exceptions=True
        )
        return [each for each, version in zip(named, found, strict=True) if not isinstance(version, BaseException)]

    def _bring_all(self, wanted: Sequence[Wanted], kept: ExitStack) -> dict[str, str]:
        return {each.name: str(self._bring(each, kept)) for each in wanted}

    def _is_on_volume(self, name: str, bundles: Mapping[str, str]) -> bool:
        return bundles.get(name) == VOLUME_BUNDLE or name in self._synced

    def _bring(self, wanted: Wanted, kept: ExitStack) -> Path:
        version = wanted.version if wanted.version and wanted.name not in self._synced else self._newest(wanted.name)

        def manifest() -> Manifest:
            return _patiently(lambda: self._store.manifest(wanted.name, version))

        def content(file: File) -> bytes:
            return _patiently(lambda: self._store.content(file))

        try:
            return kept.enter_context(self._trees.use(wanted.name, version, manifest, content))
        except OSError as error:
            raise BundleError(
                f"DAG bundle {wanted.name!r} could not be written to the container's disk: {words_of(error)}."
            ) from error

    def _newest(self, name: str) -> str:
        known = self._current.get(name)
        if known is None or time.monotonic() - known[0] > _POINTER_TTL:
            asked = time.monotonic()
            current = _patiently(lambda: self._store.current(name))
            if current is None:
                raise BundleError(
                    f"DAG bundle {name!r} is not on Volume {self._store.name}. Bring it there: `modalflow sync`."
                )
            known = self._current[name] = (asked, current.version)
        return known[1]


def _patiently(call: Callable[[], _T]) -> _T:
    """What a call of Modal returns, tried a few times; BundleError if it never does."""
    for attempt in range(_TRIES):
        try:
            return call()
        except (exception.Error, TimeoutError, ConnectionError) as error:
            if attempt + 1 == _TRIES:
                raise BundleError(f"Modal did not give the DAG files: {describe(error)}") from error
            time.sleep(_PAUSE * 2**attempt)
    raise AssertionError("unreachable")


def _leave(done: asyncio.Future[dict[str, str]], kept: ExitStack) -> None:
    if not done.cancelled():
        done.exception()  # Whoever waited has it, or was cancelled.
    # It may remove folders.
    asyncio.get_running_loop().run_in_executor(None, kept.close)
