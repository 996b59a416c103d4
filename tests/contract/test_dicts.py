"""Modal Dicts, through the SDK."""

from __future__ import annotations

import concurrent.futures
import sys
from types import ModuleType

import modal
import pytest
from modal.exception import (
    AlreadyExistsError,
    DeserializationError,
    InvalidError,
    NotFoundError,
)


def test_an_entry_is_there_until_it_is_removed(dict_: modal.Dict) -> None:
    """What is put can be read, counted and found, and is gone after a pop."""
    dict_["number"] = 1
    dict_.put(("a", 2), {"nested": [1, None]})

    assert dict_["number"] == 1
    assert dict_.get(("a", 2)) == {"nested": [1, None]}
    assert dict_.get("missing", "default") == "default"
    assert dict_.contains("number") and not dict_.contains("missing")
    assert dict_.len() == 2
    assert dict_.pop("number") == 1
    assert dict_.len() == 1
    with pytest.raises(KeyError):
        dict_.pop("number")
    with pytest.raises(KeyError):
        dict_["number"]


def test_update_and_clear_work_on_many_entries(dict_: modal.Dict) -> None:
    """An update puts all its entries, contents stream them all, a clear leaves none."""
    expected = {f"key-{n}": n for n in range(300)}
    dict_.update(expected)

    assert dict(dict_.items()) == expected
    assert set(dict_.keys()) == set(expected)
    assert sorted(dict_.values()) == sorted(expected.values())
    dict_.clear()
    assert dict_.len() == 0 and list(dict_.items()) == []


def test_a_claim_is_won_once(dict_: modal.Dict) -> None:
    """skip_if_exists says True to the first and False to everyone after, and keeps the first value."""
    assert dict_.put("claim", "first", skip_if_exists=True) is True
    assert dict_.put("claim", "second", skip_if_exists=True) is False
    assert dict_["claim"] == "first"
    assert dict_.put("claim", "third") is True


def test_one_of_many_concurrent_claims_is_won(dict_: modal.Dict) -> None:
    """However many claim at the same time, one wins, and its value is what stays."""
    with concurrent.futures.ThreadPoolExecutor(16) as threads:
        won = list(threads.map(lambda n: (n, dict_.put("claim", n, skip_if_exists=True)), range(64)))

    winners = [n for n, created in won if created]
    assert winners == [dict_["claim"]]


def test_a_name_finds_the_same_dict(client: modal.Client, dict_: modal.Dict, name: str) -> None:
    """A second handle by name or by id sees the entries of the first, and tells its name."""
    dict_["a"] = 1

    assert modal.Dict.from_name(name, client=client)["a"] == 1
    assert modal.Dict.from_id(dict_.object_id, client=client)["a"] == 1
    assert modal.Dict.from_id(dict_.object_id, client=client).hydrate(client).info().name == name


def test_a_name_that_nobody_created_is_an_error(client: modal.Client, name: str) -> None:
    """Without create_if_missing an unknown name is NotFoundError, and so is an unknown environment."""
    with pytest.raises(NotFoundError, match=name):
        modal.Dict.from_name(name, client=client).len()
    with pytest.raises(NotFoundError, match="no-such-environment"):
        modal.Dict.from_name(name, create_if_missing=True, environment_name="no-such-environment", client=client).len()


def test_creating_deleting_and_listing(client: modal.Client, name: str) -> None:
    """A created Dict is listed, newest first and page by page; creating it again fails unless allowed."""
    names = [f"{name}-{n}" for n in range(3)]
    for each in names:
        modal.Dict.objects.create(each, client=client)
    with pytest.raises(AlreadyExistsError):
        modal.Dict.objects.create(names[0], client=client)
    modal.Dict.objects.create(names[0], allow_existing=True, client=client)

    listed = [d.name for d in modal.Dict.objects.list(client=client) if d.name and d.name.startswith(name)]
    assert listed == names[::-1]
    newest = modal.Dict.objects.list(max_objects=1, client=client)
    assert [d.name for d in newest] == [names[-1]]
    older = modal.Dict.objects.list(created_before=newest[0].info().created_at, client=client)
    assert names[-1] not in [d.name for d in older]

    for each in names:
        modal.Dict.objects.delete(each, client=client)
    with pytest.raises(NotFoundError):
        modal.Dict.objects.delete(names[0], client=client)
    modal.Dict.objects.delete(names[0], allow_missing=True, client=client)


def test_a_deleted_dict_is_gone_for_those_who_hold_it(client: modal.Client, dict_: modal.Dict, name: str) -> None:
    """A handle to a deleted Dict fails; the name, created again, is a new and empty one."""
    dict_["a"] = 1
    modal.Dict.objects.delete(name, client=client)

    with pytest.raises(NotFoundError):
        dict_.get("a")
    assert modal.Dict.from_name(name, create_if_missing=True, client=client).len() == 0


def test_an_ephemeral_dict_has_no_name(client: modal.Client) -> None:
    """An ephemeral Dict works like any other and is in no listing."""
    with modal.Dict.ephemeral(client=client) as ephemeral:
        ephemeral["a"] = 1
        assert ephemeral["a"] == 1 and ephemeral.info().name is None
        assert ephemeral.object_id not in [d.object_id for d in modal.Dict.objects.list(client=client)]


def test_an_update_has_a_limit(dict_: modal.Dict) -> None:
    """More than 10,000 entries in one update are refused as a whole."""
    with pytest.raises(InvalidError, match="10001"):
        dict_.update({n: None for n in range(10_001)})
    assert dict_.len() == 0


def test_a_large_entry(dict_: modal.Dict) -> None:
    """An entry of several megabytes comes back as it was, alone and among all."""
    value = bytes(range(256)) * 20_000
    dict_["large"] = value
    assert dict_["large"] == value
    assert dict(dict_.items()) == {"large": value}


def test_what_cannot_be_read_is_an_error_that_names_it(dict_: modal.Dict) -> None:
    """A value of a class that is not there is DeserializationError, with its key; the other entries are readable."""
    dict_["good"] = 1
    gone = ModuleType("gone_module")
    gone.Gone = type("Gone", (), {"__module__": "gone_module"})  # type: ignore[attr-defined]
    sys.modules["gone_module"] = gone
    try:
        dict_["bad"] = gone.Gone()
    finally:
        del sys.modules["gone_module"]
    with pytest.raises(DeserializationError, match="gone_module"):
        dict_["bad"]
    with pytest.raises(DeserializationError, match="bad"):
        list(dict_.items())
    assert sorted(dict_.keys()) == ["bad", "good"]
    assert dict_["good"] == 1
