"""Handles of the SDK's default client, when its server changes."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import modal

from modalflow.emulator import sdk


def test_tuples_of_other_threads_are_whole() -> None:
    """Another thread may build a tuple at any moment: a list of all objects would hold it, unfinished, and break it."""
    broken: list[BaseException] = []
    ended = threading.Event()

    def build() -> None:
        try:
            while not ended.is_set():
                tuple(number for number in range(2_000))
        except SystemError as error:
            broken.append(error)

    modal.Dict.from_name("never-asked")  # The SDK has handles.
    builder = threading.Thread(target=build)
    builder.start()
    try:
        for _ in range(20):
            sdk._dehydrate_handles(SimpleNamespace())
    finally:
        ended.set()
        builder.join()
    assert not broken
