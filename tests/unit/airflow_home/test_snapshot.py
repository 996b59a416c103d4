"""Home snapshots: named by their content, and read strictly."""

from __future__ import annotations

import json

import pytest

from modalflow.airflow_home.host_home import HostHome
from modalflow.airflow_home.sealing import KeyPair, salt_of, unseal
from modalflow.airflow_home.snapshot import HomeSnapshot, manifest_of, pack, unpack
from modalflow.errors import HomeError

SECRET = {"secrets": {"backend_kwargs": '{"token": "hunter2"}'}}


@pytest.fixture(scope="module")
def keys() -> KeyPair:
    return KeyPair.new()


def home(**changes: object) -> HostHome:
    values = {
        "settings": {"core": {"xcom_backend": "acme.Backend"}, "email": {"from_email": "a@b.c"}},
        "secret": SECRET,
        "contents": {"plugins/acme.py": b"pass\n", "config/run.sh": b"#!/bin/sh\n"},
        "executables": frozenset({"config/run.sh"}),
        "salt": salt_of("the Fernet key"),
    }
    return HostHome(**values | changes)  # type: ignore[arg-type]


def test_two_schedulers_with_equal_configuration_publish_one_id(keys: KeyPair) -> None:
    """The order of settings makes no difference, and neither does the encryption, which is another one each time."""
    settings = dict(reversed(list(home().settings.items())))
    first, second = home().snapshot(keys.public), home(settings=settings).snapshot(keys.public)
    assert first.sealed is not None and second.sealed is not None
    assert first.id == second.id and first.sealed.text != second.sealed.text


@pytest.mark.parametrize(
    "change",
    [
        {"settings": {"core": {"xcom_backend": "acme.Other"}}},
        {"secret": {"secrets": {"backend_kwargs": "another"}}},
        {"secret": {}},
        {"contents": {"plugins/acme.py": b"changed\n"}},
        {"executables": frozenset()},
        {"salt": salt_of("another Fernet key")},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_difference_gives_another_id(keys: KeyPair, change: dict[str, object]) -> None:
    """Nothing of a host's configuration can change behind the id that a task carries."""
    assert home(**change).snapshot(keys.public).id != home().snapshot(keys.public).id


def test_a_snapshot_is_read_as_it_was_written(keys: KeyPair) -> None:
    """All of it arrives, the secret settings for the owner of the key alone."""
    written = home().snapshot(keys.public)
    read = HomeSnapshot.read(written.to_json(), written.id)
    assert read == written
    assert read.sealed is not None and unseal(read.sealed, keys.private) == SECRET


def test_no_secret_is_readable_in_what_is_published(keys: KeyPair) -> None:
    """Neither the snapshot nor its id depends on a secret in a way in which someone could guess it."""
    published = home().snapshot(keys.public)
    assert b"hunter2" not in published.to_json() and "hunter2" not in repr(published) + repr(home())
    assert home(salt=salt_of("b")).snapshot(keys.public).sealed != published.sealed


def test_without_a_key_the_secret_settings_stay_and_are_named() -> None:
    """A worker of an older deployment gets the rest."""
    assert home().snapshot("").sealed is None
    assert home().left_out("") == ["[secrets] backend_kwargs"]


def test_nothing_is_encrypted_if_nothing_is_secret(keys: KeyPair) -> None:
    """A container then needs neither the key nor the code to use it."""
    assert home(secret={}).snapshot(keys.public).sealed is None
    assert home(secret={}).left_out("") == []


def test_changed_settings_are_refused(keys: KeyPair) -> None:
    """Whatever someone writes to the Volume, a container sees that the scheduler did not publish it."""
    written = home().snapshot(keys.public)
    wire = json.loads(written.to_json())
    wire["settings"]["core"]["xcom_backend"] = "evil.Backend"
    with pytest.raises(HomeError, match="another content"):
        HomeSnapshot.read(json.dumps(wire).encode(), written.id)


def test_exchanged_secret_settings_are_refused(keys: KeyPair) -> None:
    """The public key is no secret: everyone can encrypt with it, but no one can make the fingerprint."""
    written, other = home().snapshot(keys.public), home(secret={"smtp": {"smtp_host": "evil"}}).snapshot(keys.public)
    assert written.sealed is not None and other.sealed is not None
    wire = json.loads(written.to_json())
    wire["sealed"] |= {"text": other.sealed.text, "wrapped_key": other.sealed.wrapped_key}
    read = HomeSnapshot.read(json.dumps(wire).encode(), written.id)
    assert read.sealed is not None
    with pytest.raises(HomeError, match="another content"):
        unseal(read.sealed, keys.private)


def test_the_wrong_key_and_no_key_are_explained(keys: KeyPair) -> None:
    """The reason names the command that fixes it."""
    sealed = home().snapshot(keys.public).sealed
    assert sealed is not None
    with pytest.raises(HomeError, match="modalflow deploy"):
        unseal(sealed, "")
    with pytest.raises(HomeError, match="cannot decrypt"):
        unseal(sealed, KeyPair.new().private)


@pytest.mark.parametrize("public", ["no base64", "AAAA"])
def test_a_malformed_public_key_is_an_error_of_modalflow(public: str) -> None:
    """The record of the deployment is on a Volume that containers can write to."""
    with pytest.raises(HomeError, match="public key"):
        home().snapshot(public)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"format": 1}',
        b'{"format": 2}',
        b'{"format": 1, "settings": {"core": {"a": 1}}, "files": "{}", "sealed": null}',
        b'{"format": 1, "settings": [], "files": "{}", "sealed": null}',
        b'{"format": 1, "settings": {}, "files": "{}", "sealed": {"x": "y"}}',
        b'{"format": 1, "settings": {}, "files": "{\\"format\\": 1, \\"files\\": {\\"../a\\": []}}", "sealed": null}',
        b"[" * 100_000,
    ],
)
def test_anything_else_is_an_error_of_modalflow(content: bytes) -> None:
    """A container can write anything to the Volume."""
    with pytest.raises(HomeError):
        HomeSnapshot.read(content, "0" * 64)


def test_files_are_stored_together_and_checked_one_by_one() -> None:
    """Each content is compared with its hash."""
    contents = {"plugins/b.py": b"b", "plugins/a.py": b"aa", "plugins/empty.py": b""}
    manifest = manifest_of(contents)
    assert unpack(manifest, pack(manifest, contents)) == contents
    with pytest.raises(ValueError, match="another content"):
        unpack(manifest, b"xxx")
