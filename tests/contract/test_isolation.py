"""Every kind of isolation runs the same apps: with root's namespaces, in a user namespace, and without either."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import modal
import pytest
from modal.exception import RemoteError
from modal_proto import api_pb2

from modalflow.emulator.faults.fault_control import FaultControl
from modalflow.emulator.processes.container_spec import Isolation
from tests.contract.deploying import Deployed, load
from tests.contract.isolated import problem_with, running
from tests.sdk import SDK
from tests.support import descendants, is_running, wait_until
from tests.wheels import make_wheel

pytestmark = pytest.mark.local_only


@pytest.mark.parametrize("isolation", list(Isolation), ids=lambda i: i.value)
def test_an_app_runs(isolation: Isolation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Calls, source files, logs, lost and frozen containers and the end of everything work with whatever the machine
    allows, and wherever the state folder is: its path is too long for a unix socket here."""
    if problem := problem_with(isolation):
        pytest.skip(problem)
    with running(isolation, tmp_path / ("deep" * 30)) as control_plane:
        monkeypatch.setenv("MODAL_SERVER_URL", control_plane.url)
        credentials = (control_plane.parts.base.credentials.token_id, control_plane.parts.base.credentials.token_secret)
        with modal.Client(control_plane.url, api_pb2.CLIENT_TYPE_CLIENT, credentials) as client:
            before = descendants()
            app = Deployed("compute_app", "isolated", client)
            assert app.call("add", 1, 2) == 3
            _check_machine(app, isolation)
            call = app.function("prints").spawn(2)
            call.get(timeout=60)
            if SDK >= (1, 5, 3):
                assert "".join(e.message for e in call.logs.fetch(source="stdout")).startswith("line 0 on stdout\n")
            with pytest.raises(RemoteError, match="signal 9"):
                app.call("dies", "notes", 99, "kill")
            faults = FaultControl(control_plane.parts.base.addresses.url, *credentials)
            faults.add("container/isolated/longest_pause:freeze=400ms,at=input,wait=1s,count=1")
            # On a loaded machine the code of an input begins late, and must not be over before the fault.
            assert app.call("longest_pause", 20.0, "", 0.3) >= 0.3
            app.call("leaves_a_child_behind")
            started = descendants().keys() - before.keys()
            if isolation is not Isolation.PLAIN:
                assert app.call("read", "/opt/compute-data/here/data.txt") == "data of the app\n"
                assert app.call("write", "/opt/compute-data/here/more.txt", "mine") == "mine"
                assert not Path("/opt/compute-data").exists()
                _check_volume(app, client)
    wait_until(lambda: not any(is_running(pid) for pid in started), what="the end of all containers")


_IN_A_USERS_NAMESPACE = """
from modalflow.emulator.processes.container_spec import Isolation
from modalflow.emulator.processes.sandboxes.gvisor import GVisor
from modalflow.emulator.processes.template import problem_with
print(problem_with(Isolation.USER, sandbox=GVisor.find(None)))
"""


def test_gvisor_needs_no_root() -> None:
    """A container in gVisor runs in namespaces of a user without rights on the machine, and reaches its Volumes."""
    for isolation in (Isolation.USER, Isolation.GVISOR):
        if problem := problem_with(isolation):
            pytest.skip(problem)
    # In a process without threads.
    tried = subprocess.run([sys.executable, "-c", _IN_A_USERS_NAMESPACE], check=True, capture_output=True, text=True)
    assert tried.stdout.strip() == ""


def _check_machine(app: Deployed, isolation: Isolation) -> None:
    """The rows of the table in docs/differs-from-modal.md."""
    seen, here = app.call("machine"), os.uname()
    if isolation is Isolation.GVISOR:
        assert (seen["release"], seen["host name"], seen["runtime"]) == ("4.4.0", "modal", "gvisor")
        assert seen["version"].startswith("Linux version 4.4.0 #1 SMP Sun Jan 10 15:06:54 PST 2016")
        assert "Starting gVisor" in seen["kernel log"]
    else:
        assert (seen["release"], seen["host name"], seen["runtime"]) == (here.release, here.nodename, None)
    assert seen["user"] == (os.geteuid() if isolation is Isolation.PLAIN else 0)


def _check_volume(app: Deployed, client: modal.Client) -> None:
    volume = modal.Volume.from_name("of-the-test", create_if_missing=True, version=2, client=client)
    changed = app.function("write").with_options(volumes={"/usr/modalflow-test/vol": volume})
    assert changed.remote("/usr/modalflow-test/vol/file.txt", "kept") == "kept"
    assert not Path("/usr/modalflow-test").exists()


# Isolation.ROOT, where there is that, is what test_images.py sees.
@pytest.mark.parametrize("isolation", [Isolation.USER, Isolation.PLAIN], ids=lambda i: i.value)
def test_an_image_has_its_packages(isolation: Isolation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is installed, and what a function wrote into its home, is in the image; a container cannot change it."""
    if problem := problem_with(isolation):
        pytest.skip(problem)
    make_wheel(tmp_path, "tinypkg", "1.0")
    module = load("image_app")
    image = (
        modal.Image.debian_slim()
        .add_local_dir(tmp_path, "/wheels", copy=True)
        .pip_install("tinypkg", find_links="/wheels", extra_options="--no-index")
        .run_function(module.write_home, args=("home",))
    )
    app = modal.App(image=image)
    tell, read, spoil = (app.function(name=f.__name__)(f) for f in (module.tell, module.read_home, module.spoil))
    with running(isolation) as control_plane:
        monkeypatch.setenv("MODAL_SERVER_URL", control_plane.url)
        credentials = (control_plane.parts.base.credentials.token_id, control_plane.parts.base.credentials.token_secret)
        client = modal.Client(control_plane.url, api_pb2.CLIENT_TYPE_CLIENT, credentials)
        with client, app.run(client=client):
            assert tell.remote("tinypkg") == {"here": "1.0", "below": "1.0", "script": "tinypkg 1.0"}
            assert read.remote() == "home"
            assert spoil.remote("tinypkg") is (isolation is Isolation.PLAIN)
