"""Data from containers is read, never run."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import modal
import pytest
from modal import exception
from modal._serialization import deserialize, serialize

from modalflow.emulator.local import LocalModal
from modalflow.errors import UntrustedDataError
from modalflow.executor.modal_api.plain_calls import bounded, listed
from modalflow.protocol.plain_data import UNREADABLE, plain_data_only


class Hostile:
    """Runs a command in whoever unpickles it."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.proof),)


def test_plain_values_are_read() -> None:
    """Texts, numbers, lists and dicts pass."""
    value = {"a": [1, 2.5, None, True], "b": "text"}
    with plain_data_only():
        assert deserialize(serialize(value), None) == value


def test_hostile_value_is_refused_and_not_run(tmp_path: Path) -> None:
    """What would import a name is refused before anything of it runs."""
    proof = tmp_path / "ran"
    with plain_data_only(), pytest.raises(exception.DeserializationError) as refused:
        deserialize(pickle.dumps(Hostile(proof)), None)
    assert isinstance(refused.value.__cause__, UntrustedDataError)
    assert not proof.exists()


def test_other_code_is_not_affected(tmp_path: Path) -> None:
    """Outside the mark the SDK reads what it always did: a user's own Modal code in the same process goes on."""
    with plain_data_only():
        pass
    assert deserialize(serialize(tmp_path), None) == tmp_path


@pytest.fixture(scope="module")
def client() -> Iterator[modal.Client]:
    with LocalModal() as local, pytest.MonkeyPatch.context() as environment:
        for name, value in local.env.items():
            environment.setenv(name, value)
        client: Any = modal.Client.from_credentials(local.env["MODAL_TOKEN_ID"], local.env["MODAL_TOKEN_SECRET"])
        yield client


async def test_mark_reaches_the_loop_of_the_sdk(client: modal.Client, tmp_path: Path) -> None:
    """The SDK unpickles on a loop of its own: the executor's calls are marked there too, for Dicts and Queues alike."""
    proof = tmp_path / "ran"
    ledger: Any = modal.Dict.from_name("hostile", create_if_missing=True, client=client)
    events: Any = modal.Queue.from_name("hostile", create_if_missing=True, client=client)
    await ledger.put.aio("work", Hostile(proof))
    await events.put.aio(Hostile(proof))
    for call in (ledger.get.aio("work"), events.get.aio()):
        with pytest.raises(exception.DeserializationError):
            await bounded(call)
    assert not proof.exists()


@pytest.mark.parametrize("content", [b"", b"no pickle", pickle.dumps("text")[:-3], pickle.dumps([1] * 9)[:9]])
def test_any_bytes_have_a_stand_in(content: bytes) -> None:
    """A container can write what no pickler would."""
    with plain_data_only(lenient=True):
        assert deserialize(content, None) is UNREADABLE


async def test_one_unreadable_value_hides_no_other(client: modal.Client, tmp_path: Path) -> None:
    """Of a Dict or a batch of a Queue, the readable values arrive, and nothing of the hostile one runs."""
    proof = tmp_path / "ran"
    ledger: Any = modal.Dict.from_name("one-hostile", create_if_missing=True, client=client)
    events: Any = modal.Queue.from_name("one-hostile", create_if_missing=True, client=client)
    for key, value in (("a", "1"), ("b", Hostile(proof)), ("c", "3")):
        await ledger.put.aio(key, value)
        await events.put.aio(value)
    assert dict(await listed(ledger.items.aio())) == {"a": "1", "b": UNREADABLE, "c": "3"}
    assert await bounded(events.get_many.aio(10), lenient=True) == ["1", UNREADABLE, "3"]
    assert not proof.exists()
    with pytest.raises(exception.DeserializationError):
        await bounded(ledger.get.aio("b"))
