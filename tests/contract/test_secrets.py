"""Modal Secrets, through the SDK. What a function sees of them is tested with functions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import modal
import pytest
from modal.exception import AlreadyExistsError, Error, InvalidError, NotFoundError
from modal_proto import api_pb2

from tests.sdk import needs_sdk, rpc


@pytest.fixture
def secret(client: modal.Client, name: str) -> Iterator[str]:
    """The name of a Secret with the keys A and B."""
    modal.Secret.objects.create(name, {"A": "1", "B": "two"}, client=client)
    yield name
    modal.Secret.objects.delete(name, allow_missing=True, client=client)


def test_a_secret_is_found_by_its_name(client: modal.Client, secret: str) -> None:
    """A created Secret is hydrated by name, tells its name and is listed; an unknown one is NotFoundError."""
    assert modal.Secret.from_name(secret, client=client).hydrate(client).info().name == secret
    assert secret in [s.name for s in modal.Secret.objects.list(client=client)]
    with pytest.raises(NotFoundError):
        modal.Secret.from_name(f"{secret}-not", client=client).hydrate(client)


def test_required_keys_are_checked(client: modal.Client, secret: str) -> None:
    """Keys that are there pass; one that is not is an error that names it, and no value."""
    modal.Secret.from_name(secret, required_keys=["A", "B"], client=client).hydrate(client)
    with pytest.raises(Error, match="MISSING") as raised:
        modal.Secret.from_name(secret, required_keys=["A", "MISSING"], client=client).hydrate(client)
    assert "two" not in str(raised.value)


def test_a_secret_is_created_once(client: modal.Client, secret: str) -> None:
    """Creating it again fails, unless existing ones are allowed: then it keeps its values."""
    with pytest.raises(AlreadyExistsError):
        modal.Secret.objects.create(secret, {"C": "3"}, client=client)
    modal.Secret.objects.create(secret, {"C": "3"}, allow_existing=True, client=client)
    modal.Secret.from_name(secret, required_keys=["A", "B"], client=client).hydrate(client)


def test_an_update_changes_the_keys_it_names(client: modal.Client, secret: str) -> None:
    """Keys are added, the others stay."""
    held = modal.Secret.from_name(secret, client=client).hydrate(client)
    held.update({"C": "3"})
    modal.Secret.from_name(secret, required_keys=["A", "B", "C"], client=client).hydrate(client)


def test_a_deleted_secret_is_gone(client: modal.Client, secret: str) -> None:
    """A deleted Secret is NotFoundError; deleting it again, too, unless that is allowed."""
    modal.Secret.objects.delete(secret, client=client)
    with pytest.raises(NotFoundError):
        modal.Secret.from_name(secret, client=client).hydrate(client)
    with pytest.raises(NotFoundError):
        modal.Secret.objects.delete(secret, client=client)
    modal.Secret.objects.delete(secret, allow_missing=True, client=client)


@needs_sdk("1.6")
@pytest.mark.local_only
def test_values_are_never_answered(client: modal.Client, secret: str) -> None:
    """No RPC hands a Secret's values to a client: only names of keys."""
    held = modal.Secret.from_name(secret, client=client).hydrate(client)
    listed = rpc(client, "SecretList", api_pb2.SecretListRequest())
    info = rpc(client, "SecretGetInfo", api_pb2.SecretGetInfoRequest(secret_id=held.object_id))
    assert list(info.metadata.keys) == ["A", "B"]
    assert b"two" not in listed.SerializeToString() + info.SerializeToString()


@needs_sdk("1.6")
def test_secrets_made_of_what_is_here(
    client: modal.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A Secret can be a mapping, a .env file or variables of this machine; None is no value, and names have a form."""
    (tmp_path / ".env").write_text("FROM_FILE=1\n# a comment\nQUOTED='a b'\n")
    monkeypatch.setenv("HERE", "there")
    app = modal.App(name)
    made = [
        modal.Secret.from_dict({"A": "1", "NOTHING": None}),
        modal.Secret.from_dotenv(tmp_path),
        modal.Secret.from_local_environ(["HERE"]),
    ]

    def variables(names: list[str]) -> list[str | None]:
        import os

        return [os.environ.get(each) for each in names]

    function = app.function(secrets=made, serialized=True)(variables)
    with app.run(client=client):
        found = function.remote(["A", "NOTHING", "FROM_FILE", "QUOTED", "HERE"])
    assert found == ["1", None, "1", "a b", "there"]
    with pytest.raises(InvalidError, match="NOT_HERE"):
        modal.Secret.from_local_environ(["NOT_HERE"])
    with pytest.raises(InvalidError, match="str"):
        modal.Secret.from_dict({"A": 1})  # type: ignore[dict-item]
    with pytest.raises(InvalidError):
        modal.Secret.objects.create("no spaces please", {}, client=client)
