"""What a hostile container, package or client cannot do. docs/security.md says against whom and where that holds."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import modal
import pytest
from modal_proto import api_pb2

from modalflow.emulator.processes.container_spec import Isolation
from tests.contract.deploying import Deployed, load
from tests.contract.isolated import problem_with, running
from tests.support import is_running

pytestmark = pytest.mark.local_only

NAMESPACES = [Isolation.ROOT, Isolation.USER, Isolation.GVISOR]

_NUMBERS = itertools.count()


@pytest.mark.parametrize("isolation", NAMESPACES, ids=lambda i: i.value)
def test_a_container_keeps_to_itself(isolation: Isolation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It finds neither the control plane's state nor its token, no other container's files, processes or memory, and
    can change nothing of the machine; what it writes is gone when it ends. In namespaces of either kind."""
    if problem := problem_with(isolation):
        pytest.skip(problem)
    state = tmp_path / "state"
    outside = tmp_path / "outside"
    with running(isolation, state) as control_plane:
        monkeypatch.setenv("MODAL_SERVER_URL", control_plane.url)
        credentials = (control_plane.parts.base.credentials.token_id, control_plane.parts.base.credentials.token_secret)
        with modal.Client(control_plane.url, api_pb2.CLIENT_TYPE_CLIENT, credentials) as client:
            app = Deployed("hostile_app", "hostile", client)
            notes = modal.Queue.from_name("notes", create_if_missing=True, client=client).hydrate(client)
            other = app.function("stay").spawn(notes, "/dev/shm/of-the-other")
            assert notes.get(timeout=60) == "staying"

            seen = app.call("files_below", str(state))
            strangers = [path for path in seen if "bytecode" not in Path(path).parts and "arguments.bin" not in path]
            doors = app.call("files_below", str(control_plane.parts.base.sockets.folder))
            assert len(doors) == 1 and set(strangers) <= set(doors)
            assert sum("arguments.bin" in path for path in seen) == 1
            assert not {"state.sqlite", "token.json", "blobs", "files"} & set(app.call("uncover", str(state)))
            assert app.call("whoever_knows", credentials[1]) == []
            assert app.call("files_below", "/dev/shm") == []

            alive = [container.process for container in control_plane.parts.execution.pools.live()]
            pids = [os.getpid(), *(process.pid for process in alive if process is not None)]
            assert app.call("signal_others", pids) == []
            assert app.call("processes") <= 3
            # gVisor has a kernel of its own behind this file.
            of_the_sandbox = ["/proc/sysrq-trigger"] if isolation is Isolation.GVISOR else []
            assert app.call("change_the_machine") == of_the_sandbox

            paths = [str(outside / "file"), "/dev/shm/scribbled", "/var/tmp/modalflow-scribbled/file"]
            assert app.call("scribble", paths) == paths
            assert not any(os.path.lexists(path) for path in paths)

            asked = [
                app.call("ask", f"{control_plane.parts.base.addresses.url}{path}", token)
                for path, token in (("/control/containers", ""), ("/control/faults", "ak-guess:as-guess"))
            ]
            assert asked == [401, 401]

            notes.put(None, partition="go")
            assert other.get(timeout=60) == "mine"
        assert is_running(os.getpid())


_BACKEND = """
import os, pathlib, sys, zipfile
def build_wheel(folder, settings=None, metadata=None):
    for path in {paths!r}:
        pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
        pathlib.Path(path).write_text("scribbled")
    print("seen", sorted(os.listdir({state!r})))
    about = "sly-1.0.dist-info"
    files = {{
        "sly.py": "VERSION = '1.0'",
        f"{{about}}/METADATA": "Metadata-Version: 2.1\\nName: sly\\nVersion: 1.0\\n",
        f"{{about}}/WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    }}
    files[f"{{about}}/RECORD"] = "".join(f"{{name}},,\\n" for name in [*files, f"{{about}}/RECORD"])
    with zipfile.ZipFile(pathlib.Path(folder, "sly-1.0-py3-none-any.whl"), "w") as wheel:
        for name, content in files.items():
            wheel.writestr(name, content)
    return "sly-1.0-py3-none-any.whl"
"""


@pytest.mark.parametrize("isolation", NAMESPACES, ids=lambda i: i.value)
def test_a_package_that_is_built_writes_into_its_image_only(
    isolation: Isolation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A package's build script runs in a room: neither the machine's files nor the state folder are in its reach."""
    if problem := problem_with(isolation):
        pytest.skip(problem)
    state, source = tmp_path / "state", tmp_path / "source"
    source.mkdir()
    paths = [str(Path.home() / f"modalflow-sly-{os.getpid()}"), str(tmp_path / "sly"), f"{state}/sly"]
    (source / "backend.py").write_text(_BACKEND.format(paths=paths, state=str(state)))
    (source / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "sly"\nversion = "1.0"\n'
    )
    image = (
        modal.Image.debian_slim()
        .add_local_dir(source, "/source", copy=True)
        .pip_install("/source", extra_options="--no-index")
    )
    app = modal.App(image=image)
    version = app.function(name="version")(load("image_app").version)
    with running(isolation, state) as control_plane:
        monkeypatch.setenv("MODAL_SERVER_URL", control_plane.url)
        credentials = (control_plane.parts.base.credentials.token_id, control_plane.parts.base.credentials.token_secret)
        client = modal.Client(control_plane.url, api_pb2.CLIENT_TYPE_CLIENT, credentials)
        with client, app.run(client=client):
            assert version.remote("sly") == "1.0"
        assert [path for path in paths if os.path.lexists(path)] == []


def _listing(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def _program(name: str, *arguments: str) -> list[str]:
    """Return the command for a program of this folder, in any current folder."""
    found_from = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r}); "
    return [sys.executable, "-c", f"{found_from}from tests.contract.{name} import main; main()", *arguments]


def test_nothing_is_written_outside_of_the_state_folder(tmp_path: Path) -> None:
    """The home, the temporary and the current folder are after a control plane with containers, volumes and blobs what
    they were before; so is what is mounted on this machine elsewhere than at its root."""
    folders = [tmp_path / name for name in ("home", "tmp", "cwd")]
    for folder in folders:
        folder.mkdir()
    environ = {**os.environ, "HOME": str(folders[0]), "TMPDIR": str(folders[1]), "PYTHONDONTWRITEBYTECODE": "1"}
    environ.pop("MODAL_CONFIG_PATH", None)
    script = _program("scribbling", str(tmp_path / "s"))
    unshare = shutil.which("unshare")
    is_apart = False
    if unshare is not None and os.geteuid() == 0 and not problem_with(Isolation.ROOT):
        # What other machines have at /home or /tmp: a file system of its own.
        mounted = 'mount -t tmpfs none "$0" && touch "$0/there" && exec "$@"'
        command = [unshare, "--mount", "sh", "-c", mounted, str(folders[1]), *script]
        is_apart = True
    else:
        command = script
    done = subprocess.run(command, env=environ, cwd=folders[2], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert {str(folder): _listing(folder) for folder in folders} == {str(folder): set() for folder in folders}
    left = done.stdout.strip().splitlines()[-1]
    assert left == ("left: ['there']" if is_apart else "left: []")


def _scribbled_beside(
    mounts: str, isolation: Isolation, state: Path, *folders: Path
) -> subprocess.CompletedProcess[str]:
    return _run_beside(mounts, "scribbling", isolation, state, *folders)


def _run_beside(
    mounts: str, program: str, isolation: Isolation, state: Path, *paths: Path
) -> subprocess.CompletedProcess[str]:
    """Run a program of this folder in mounts of its own, made by a shell's commands."""
    unshare = shutil.which("unshare")
    if unshare is None or os.geteuid() != 0 or problem_with(isolation):
        pytest.skip("mounts need root, and namespaces")
    script = _program(program, str(state), isolation.value, *map(str, paths))
    command = [unshare, "--mount", "sh", "-c", f'{mounts} && exec "$@"', "sh", *script]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("isolation", [Isolation.ROOT, Isolation.USER], ids=lambda i: i.value)
def test_a_temporary_folder_is_writable_beside_mounts(isolation: Isolation, tmp_path: Path) -> None:
    """Docker and Podman mount their containers' file systems below /var/lib."""
    mounts = "mount -t tmpfs none /var/lib && mkdir /var/lib/docker && mount -t tmpfs none /var/lib/docker"
    done = _scribbled_beside(mounts, isolation, tmp_path / "s", Path("/var/tmp"))
    assert done.returncode == 0, done.stderr[-2000:]
    assert not Path("/var/tmp/scribbled").exists()


def test_a_file_beside_mounts_keeps_its_text(tmp_path: Path) -> None:
    """Without privileges, a folder with mounts below has no overlay, and its files are the host's: read-only ones."""
    (tmp_path / "scribbled").write_text("the host's")
    (tmp_path / "below").mkdir()
    # The state folder is there as well, so that each file of the folder is shown by itself.
    done = _scribbled_beside(f"mount -t tmpfs none {tmp_path}/below", Isolation.USER, tmp_path / "s", tmp_path)
    assert "Read-only file system" in done.stderr
    assert (tmp_path / "scribbled").read_text() == "the host's"


@pytest.mark.parametrize("isolation", [Isolation.ROOT, Isolation.USER], ids=lambda i: i.value)
def test_a_file_system_with_the_state_folder_is_writable(isolation: Isolation, tmp_path: Path) -> None:
    """On Debian 13, /tmp is a file system of its own, and temporary state folders are in it."""
    done = _scribbled_beside(f"mount -t tmpfs none {tmp_path}", isolation, tmp_path / "s", tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("isolation", [Isolation.ROOT, Isolation.USER], ids=lambda i: i.value)
def test_mounts_beside_the_state_folder_are_writable(isolation: Isolation, tmp_path: Path) -> None:
    """As on a machine where /tmp is a file system, and another program has mounted something in it."""
    beside, inner = tmp_path / "beside", tmp_path / "inner"
    mounts = f"mount -t tmpfs none {tmp_path} && mkdir {beside} {inner} && mount -t tmpfs none {inner}"
    done = _scribbled_beside(mounts, isolation, tmp_path / "s", tmp_path, beside, inner)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("isolation", [Isolation.ROOT, Isolation.USER], ids=lambda i: i.value)
def test_an_image_has_what_its_function_wrote_beside_the_root(isolation: Isolation, tmp_path: Path) -> None:
    """On many servers, /opt or /home is a file system of its own."""
    file = Path("/opt/by-a-function-of-an-image")
    done = _run_beside("mount --bind /opt /opt", "building", isolation, tmp_path / "s", file)
    assert "read: built" in done.stdout, done.stderr[-2000:]
    assert not file.exists()
