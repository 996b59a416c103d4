"""What Modal's SDK talks to in a process that starts a LocalModal: that one, then what was before, and nothing else.

The user's account is played by a control plane that counts its RPCs.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import modal
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from modal.client import _Client

from modalflow.emulator import LocalModal, WrongServerError, sdk
from modalflow.emulator.local import Address, end, launch
from modalflow.emulator.options import Options
from tests.forking import in_child
from tests.sdk import client_of
from tests.support import is_running, wait_until

NAME = "of-the-test"


@pytest.fixture(scope="module")
def account() -> Iterator[Address]:
    """The user's account. No LocalModal: those of a process are open to it."""
    with TemporaryFile() as stderr:
        process, address = launch(Options(with_parent=True), stderr)
        address.faults.add("*:delay=0s")
        yield address
        end(process)


@pytest.fixture
def configured(account: Address, monkeypatch: pytest.MonkeyPatch) -> Iterator[Address]:
    """The account, as the process of a user is configured who has used Modal already."""
    before = _Client._client_from_env
    _Client._client_from_env = None
    for name, value in account.variables().items():
        monkeypatch.setenv(name, value)
    modal.Dict.from_name(NAME, create_if_missing=True)["where"] = "account"
    variables = modal_variables()
    yield account
    assert modal_variables() == variables
    assert modal.Dict.from_name(NAME)["where"] == "account"
    _Client._client_from_env = before


def modal_variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("MODAL")}


def rpcs(account: Address) -> int:
    """How many RPCs it has had."""
    return account.faults.list()[0].seen


def store(value: str) -> None:
    modal.Dict.from_name(NAME, create_if_missing=True)["where"] = value


def stored() -> Any:
    return modal.Dict.from_name(NAME, create_if_missing=True).get("where")


def test_a_process_that_has_used_modal(configured: Address) -> None:
    """Nothing of the block reaches the account, which is there again after it."""
    mine = modal.Dict.from_name(NAME).hydrate()
    had = rpcs(configured)
    with LocalModal() as local:
        os.environ.update(local.env)
        store("local")
        assert (stored(), mine["where"]) == ("local", "local")
        modal.Dict.objects.delete(NAME)
        assert stored() is None
    assert rpcs(configured) == had
    assert mine["where"] == "account"


def test_one_after_the_other(configured: Address) -> None:
    """Each begins empty, and a handle that a module keeps is one of the server that runs."""
    kept = modal.Dict.from_name(NAME, create_if_missing=True)
    had = rpcs(configured)
    for _ in range(2):
        with LocalModal():
            assert kept.get("where") is None
            kept["where"] = "local"
            assert stored() == "local"
    assert rpcs(configured) == had


def test_nested(configured: Address) -> None:
    """The inner one holds, then the outer one again, whichever ends first."""
    had = rpcs(configured)
    outer, inner = LocalModal().start(), LocalModal().start()
    store("inner")
    inner.stop()
    assert stored() is None
    store("outer")
    with LocalModal() as later:
        assert stored() is None
        outer.stop()
        assert stored() is None
        assert os.environ["MODAL_SERVER_URL"] == later.url
    assert rpcs(configured) == had


def test_an_error_within(configured: Address) -> None:
    """Everything is as before it."""
    with pytest.raises(ZeroDivisionError), LocalModal():
        store("local")
        raise ZeroDivisionError
    assert stored() == "account"


async def test_the_control_plane_dies_within(configured: Address) -> None:
    """Its calls wait for it, as the SDK does for Modal; none goes to the account instead, which is there after it."""
    had = rpcs(configured)
    with LocalModal() as local:
        os.kill(local.pid, signal.SIGKILL)
        wait_until(lambda: not is_running(local.pid), what="its end")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(modal.Dict.from_name(NAME, create_if_missing=True).len.aio(), 0.5)
    assert rpcs(configured) == had


def test_two_threads(configured: Address) -> None:
    """The default is one for the process: another thread is refused one, and may have one that is none."""
    errors: list[str] = []

    def other() -> None:
        try:
            LocalModal().start()
        except RuntimeError as error:
            errors.append(str(error))
        with LocalModal(as_default=False) as own, client_of(own.url, own.env) as client:
            modal.Dict.from_name(NAME, create_if_missing=True, client=client)["where"] = "other"

    with LocalModal() as local:
        store("local")
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(60)
        assert stored() == "local"
        assert local.url in errors[0]
        assert "as_default=False" in errors[0]


def test_one_of_a_thread_that_has_ended(configured: Address) -> None:
    """Whoever started it, its successor is taken: as with pytest's fixtures that run in an executor."""
    started: list[LocalModal] = []
    thread = threading.Thread(target=lambda: started.append(LocalModal().start()))
    thread.start()
    thread.join(60)
    with LocalModal():
        assert stored() is None
    started[0].stop()


async def test_within_a_running_event_loop(configured: Address) -> None:
    """As in a notebook, or in an asynchronous test."""
    had = rpcs(configured)
    with LocalModal():
        await modal.Dict.from_name(NAME, create_if_missing=True).put.aio("where", "loop")
        assert await modal.Dict.from_name(NAME).get.aio("where") == "loop"
        first, second = await asyncio.gather(
            *[modal.Dict.from_name(name, create_if_missing=True).len.aio() for name in (NAME, "another")]
        )
        assert (first, second) == (1, 0)
    assert rpcs(configured) == had


def test_what_has_no_name_stays_where_it_is(configured: Address) -> None:
    """An object that cannot be looked up anew is refused, with what to do, rather than used on its own server."""
    with modal.Dict.ephemeral() as unnamed:
        client = modal.Client.from_credentials(*_tokens(configured))
        explicit = modal.Dict.from_name(NAME, client=client).hydrate()
        had = rpcs(configured)
        with LocalModal() as local:
            for handle in (unnamed, explicit):
                with pytest.raises(WrongServerError) as refusal:
                    handle.put("a", 1)
                assert local.url in str(refusal.value)
                assert configured.url in str(refusal.value)
        assert rpcs(configured) == had
        explicit.put("a", 1)
        unnamed.put("a", 1)


def test_a_handle_outlives_its_server(configured: Address) -> None:
    """It says so, instead of waiting for a server that is not there; the account does not get its calls."""
    with LocalModal() as local, modal.Dict.ephemeral() as unnamed:
        opened: Any = client_of(local.url, local.env)
        client = opened.__enter__()
        explicit = modal.Dict.from_name(NAME, create_if_missing=True, client=client).hydrate()
        unnamed.put("a", 1)
        url = local.url
        local.stop()
        for handle in (unnamed, explicit):
            with pytest.raises(WrongServerError, match=f"{url}, which has ended"):
                handle.put("a", 1)


def test_clients_of_credentials(configured: Address) -> None:
    """They are of the LocalModal, which knows its own token and not the account's."""
    had = rpcs(configured)
    with LocalModal() as local:
        store("local")
        client = modal.Client.from_credentials(*_tokens(local.address))
        assert modal.Dict.from_name(NAME, client=client)["where"] == "local"
        with pytest.raises(modal.exception.AuthError):
            modal.Client.from_credentials(*_tokens(configured)).hello()
    assert rpcs(configured) == had


def _tokens(address: Address) -> tuple[str, str]:
    return address.token_id, address.token_secret


app = modal.App("of-a-module")
volume = modal.Volume.from_name("of-a-module", create_if_missing=True)
secret = modal.Secret.from_dict({"WHERE": "local"})
results = modal.Dict.from_name("of-a-module", create_if_missing=True)


@app.function(image=modal.Image.debian_slim().env({"LAYER": "1"}), volumes={"/data": volume}, secrets=[secret])
def work(number: int) -> str:
    results["number"] = number
    return f"{os.environ['WHERE']} {os.environ['LAYER']}"


app_file = Path(__file__)


deployed = modal.Function.from_name("of-a-module", "work")


def test_an_app_of_a_module_runs_in_each(configured: Address) -> None:
    """With the image, the Volume, the Secret and the Dict that it names, and by its name, in one after the other."""
    had = rpcs(configured)
    for number in range(2):
        with LocalModal():
            with app.run():
                assert work.remote(number) == "local 1"
            assert results["number"] == number
            assert volume.listdir("/") == []
            app.deploy()
            assert deployed.remote(number) == "local 1"
        with pytest.raises(WrongServerError):
            work.remote(number)
    assert rpcs(configured) == had


CHILD = "import modal; print(modal.Dict.from_name('of-the-test')['where'])"


def test_processes_that_start_within(configured: Address) -> None:
    """They talk to it too, new ones and forked ones; an end of theirs is not its end."""
    with LocalModal() as local:
        store("local")
        assert (
            subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, timeout=60).stdout
            == "local\n"
        )

        def forked() -> Any:
            found = stored()
            local.stop()
            return found

        assert in_child(forked) == "local"
        assert stored() == "local"


def test_what_puts_the_variables_back_too_late(configured: Address) -> None:
    """pytest's monkeypatch may end after a LocalModal, with the variables that it found: those of a dead server."""
    variables = modal_variables()
    with LocalModal() as first:
        dead = first.env
    os.environ.update(dead)
    with LocalModal():
        store("local")
    assert modal_variables() == variables


def test_other_threads_never_reach_the_account_within(configured: Address) -> None:
    """Whatever they are doing when it begins and ends, none of their calls within it goes to the account."""
    over = threading.Event()
    failures: list[str] = []

    def keep_asking() -> None:
        while not over.is_set():
            try:
                stored()
                modal.Dict.from_name(NAME, create_if_missing=True).put("other", 1)
            except (WrongServerError, modal.exception.Error, OSError):
                pass  # A handle of the server that has just ended.
            except BaseException as error:  # noqa: BLE001  The test fails with them.
                failures.append(repr(error))

    threads = [threading.Thread(target=keep_asking) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            with LocalModal():
                had = rpcs(configured)
                for _ in range(20):
                    stored()
                assert rpcs(configured) <= had + len(threads)
    finally:
        over.set()
        for thread in threads:
            thread.join(60)
    assert failures == []


WITH_FILE = """
import os, sys
{before}
from modalflow.emulator import LocalModal
with LocalModal() as local:
    import modal
    d = modal.Dict.from_name("d", create_if_missing=True)
    d["a"] = 1
    assert modal.config.config.get("server_url") == local.url
    assert modal.config.config.get("environment") == "main"
from modal.config import config, config_profiles
print(config.get("token_id"), config.get("server_url"), list(config_profiles()))
"""

FILES = {
    "an active profile": (
        "[a]\ntoken_id = 'ak-a'\ntoken_secret = 'as-a'\nserver_url = 'http://127.0.0.1:9'\nactive = true\n"
    ),
    "OAuth": (
        "[default]\noauth_refresh_token = 'r'\noauth_client_id = 'oc-1'\noauth_client_secret = 'ov-1'\n"
        "token_id = 'ak-a'\nserver_url = 'http://127.0.0.1:9'\nenvironment = 'prod'\n"
    ),
}


@pytest.mark.parametrize("before", ["import modal", ""], ids=["imported before", "imported within"])
@pytest.mark.parametrize("file", list(FILES))
def test_an_account_in_a_file(tmp_path: Path, before: str, file: str) -> None:
    """~/.modal.toml, with whatever profile, does not count within, and counts after it."""
    (tmp_path / ".modal.toml").write_text(FILES[file])
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MODAL")}
    program = [sys.executable, "-W", "error", "-c", WITH_FILE.format(before=before)]
    done = subprocess.run(
        program, env={**environ, "HOME": str(tmp_path)}, capture_output=True, text=True, timeout=60, check=False
    )
    profile = "a" if "active" in FILES[file] else "default"
    assert done.stdout == f"ak-a http://127.0.0.1:9 ['{profile}']\n", done.stderr


class Defaults(RuleBasedStateMachine):
    """Servers become the default and stop being it in any order: what is looked up is always in the last one."""

    planes: list[LocalModal]

    def __init__(self) -> None:
        super().__init__()
        self.kept = modal.Dict.from_name(NAME, create_if_missing=True)
        self.entered: list[tuple[int, sdk.DefaultServer]] = []
        self.values: dict[int, int] = {}

    @property
    def current(self) -> int:
        """Which one holds; -1 is the account."""
        return self.entered[-1][0] if self.entered else -1

    @precondition(lambda self: len(self.entered) < len(self.planes))
    @rule(data=st.data())
    def enter(self, data: st.DataObject) -> None:
        free = [number for number in range(len(self.planes)) if number not in dict(self.entered)]
        number = data.draw(st.sampled_from(free))
        plane = self.planes[number]
        self.entered.append((number, sdk.enter(plane.url, plane.env)))

    @precondition(lambda self: self.entered)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.entered) - 1))
        sdk.leave(self.entered.pop(index)[1])

    @rule(value=st.integers(0, 9), keep=st.booleans())
    def write(self, value: int, keep: bool) -> None:
        handle = self.kept if keep else modal.Dict.from_name(NAME, create_if_missing=True)
        handle["value"] = value
        self.values[self.current] = value

    @rule(keep=st.booleans())
    def read(self, keep: bool) -> None:
        handle = self.kept if keep else modal.Dict.from_name(NAME, create_if_missing=True)
        if self.current in self.values:
            assert handle["value"] == self.values[self.current]

    def teardown(self) -> None:
        while self.entered:
            sdk.leave(self.entered.pop()[1])


def test_any_order(configured: Address) -> None:
    """Of three servers and the account, in whatever order they begin and end."""
    with LocalModal(as_default=False) as a, LocalModal(as_default=False) as b, LocalModal(as_default=False) as c:
        Defaults.planes = [a, b, c]
        run_state_machine_as_test(
            Defaults,
            settings=settings(
                max_examples=10, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
            ),
        )
