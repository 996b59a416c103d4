"""Modal environments, through the SDK."""

from __future__ import annotations

from collections.abc import Iterator

import modal
import modal.environments
import pytest
from modal.exception import AlreadyExistsError, NotFoundError

pytestmark = pytest.mark.local_only  # A live workspace has few environments, and other people's objects in them.


@pytest.fixture
def environment(client: modal.Client, name: str) -> Iterator[str]:
    """The name of an environment of the test's own."""
    modal.Environment.objects.create(name, client=client)
    yield name
    if name in [e.name for e in modal.Environment.objects.list(client=client)]:
        modal.Environment.objects.delete(name, client=client)


def test_the_default_environment_is_there(client: modal.Client) -> None:
    """Without any setting the environment is main."""
    assert "main" in [e.name for e in modal.Environment.objects.list(client=client)]
    assert modal.Environment.from_context(client=client).hydrate(client).name == "main"


def test_an_environment_is_created_once_and_listed(client: modal.Client, environment: str) -> None:
    """A created environment is listed; creating it again fails; an unknown one is NotFoundError."""
    assert environment in [e.name for e in modal.Environment.objects.list(client=client)]
    with pytest.raises(AlreadyExistsError):
        modal.Environment.objects.create(environment, client=client)
    with pytest.raises(NotFoundError):
        modal.Environment.from_name("no-such-environment", client=client).hydrate(client)


def test_the_same_name_in_two_environments_is_two_objects(
    client: modal.Client, environment: str, dict_: modal.Dict, name: str
) -> None:
    """An object belongs to one environment: its name in another one is another object."""
    other = modal.Dict.from_name(name, environment_name=environment, create_if_missing=True, client=client)
    dict_["where"] = "main"
    other["where"] = environment

    assert dict_["where"] == "main" and other["where"] == environment
    listed = modal.Dict.objects.list(environment_name=environment, client=client)
    assert [d.object_id for d in listed] == [other.object_id]


def test_a_deleted_environment_takes_its_objects_along(client: modal.Client, environment: str, name: str) -> None:
    """What lived in a deleted environment is gone, also for who holds it."""
    held = modal.Dict.from_name(name, environment_name=environment, create_if_missing=True, client=client)
    held["a"] = 1
    modal.Environment.objects.delete(environment, client=client)
    with pytest.raises(NotFoundError):
        held["a"]
    with pytest.raises(NotFoundError):
        modal.Dict.from_name(name, environment_name=environment, client=client).len()


def test_a_renamed_environment_keeps_its_objects(client: modal.Client, environment: str, name: str) -> None:
    """After a rename the objects are found under the new name."""
    modal.Dict.from_name(name, environment_name=environment, create_if_missing=True, client=client)["a"] = 1
    modal.environments.update_environment(environment, new_name=f"{environment}-new", client=client)
    try:
        renamed = modal.Dict.from_name(name, environment_name=f"{environment}-new", client=client)
        assert renamed["a"] == 1
    finally:
        modal.Environment.objects.delete(f"{environment}-new", client=client)


def test_the_default_environment_stays(client: modal.Client) -> None:
    """The default environment cannot be deleted."""
    with pytest.raises(modal.exception.ConflictError, match="default"):
        modal.Environment.objects.delete("main", client=client)
