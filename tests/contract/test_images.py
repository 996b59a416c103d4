"""Images: what they install, copy and set is what containers find, and a build tells what it does."""

from __future__ import annotations

import contextlib
import itertools
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import modal
import pytest
from modal_proto import api_pb2

from modalflow.emulator.local import LocalModal
from tests.contract.deploying import load
from tests.sdk import client_of, needs_sdk, rpc
from tests.wheels import make_wheel

_NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two versions of a package, and one of a package that the host has too."""
    folder = tmp_path_factory.mktemp("wheels")
    for name, version in (("tinypkg", "1.0"), ("tinypkg", "2.0"), ("natsort", "99.0")):
        make_wheel(folder, name, version)
    return folder


@pytest.fixture(scope="module")
def base(wheels: Path) -> modal.Image:
    """An image with the wheels in it."""
    return modal.Image.debian_slim().add_local_dir(wheels, "/wheels", copy=True)


def function(app: modal.App, image: modal.Image, name: str = "tell") -> modal.Function[..., Any, Any]:
    """One of the functions in image_app.py, in an image."""
    return app.function(image=image, name=f"{name}-{next(_NUMBERS)}")(getattr(load("image_app"), name))


@contextlib.contextmanager
def built(image: modal.Image, client: modal.Client) -> Iterator[modal.Image]:
    app = modal.App()
    with app.run(client=client):
        yield image.build(app)


def log_of(image: modal.Image) -> str:
    """All that was said while an image's last layer was built."""
    return "".join(image._logs())


def test_packages_are_installed(client: modal.Client, base: modal.Image) -> None:
    """Two images with two versions of a package, one without: functions, what they start and programs see theirs."""
    app = modal.App()
    one = function(app, base.pip_install("/wheels/tinypkg-1.0-py3-none-any.whl", extra_options="--no-index"))
    newest = base.uv_pip_install("tinypkg", "natsort==99.0", find_links="/wheels", extra_options="--no-index")
    two = function(app, newest)
    shadowing = function(app, newest, "version")
    without = function(app, base)
    with app.run(client=client):
        assert one.remote("tinypkg") == {"here": "1.0", "below": "1.0", "script": "tinypkg 1.0"}
        assert two.remote("tinypkg") == {"here": "2.0", "below": "2.0", "script": "tinypkg 2.0"}
        assert without.remote("tinypkg") == {"here": None, "below": "", "script": ""}
        assert shadowing.remote("natsort") == "99.0"
    # Of the package that was shadowed the machine still has its own.
    assert metadata.version("natsort") != "99.0"


def test_layers_add_up(client: modal.Client, base: modal.Image, tmp_path: Path) -> None:
    """Requirements files, pyproject files, variables and later layers over earlier ones, all in one chain."""
    (tmp_path / "requirements.txt").write_text("--no-index\n--find-links /wheels\ntinypkg==1.0  # first\n")
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\ndependencies = ["tinypkg>1"]\n')
    image = (
        base.env({"SET": "by 'env'", "PATH": "/opt/nothing:$PATH"})
        .pip_install_from_requirements(str(tmp_path / "requirements.txt"))
        .workdir("/opt")
    )
    newer = image.pip_install_from_pyproject(
        str(tmp_path / "pyproject.toml"), find_links="/wheels", extra_options="--no-index"
    )
    app = modal.App()
    old, new, variables = function(app, image, "version"), function(app, newer), function(app, newer, "variables")
    with app.run(client=client):
        assert old.remote("tinypkg") == "1.0"
        assert new.remote("tinypkg") == {"here": "2.0", "below": "2.0", "script": "tinypkg 2.0"}
        found = variables.remote()
        assert found["SET"] == "by 'env'"
        assert "/opt/nothing:" in found["PATH"]


def test_files_copied_into_an_image(client: modal.Client, tmp_path: Path) -> None:
    """add_local_* with copy=True, a Dockerfile's COPY, and files that are only mounted lie over each other."""
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "b.txt").write_text("b")
    image = (
        modal.Image.debian_slim()
        .add_local_file(tmp_path / "a.txt", "/opt/image/a.txt", copy=True)
        .dockerfile_commands("WORKDIR /opt/image", "COPY b.txt sub/", context_dir=tmp_path)
        .add_local_file(tmp_path / "b.txt", "/opt/image/c.txt")
    )
    app = modal.App()
    read = function(app, image, "read")
    with app.run(client=client):
        found = [read.remote(path) for path in ("/opt/image/a.txt", "sub/b.txt", "/opt/image/c.txt")]
    assert found == ["a", "b", "b"]


NASTY = {
    "JSON": '{"a": ["b c", 1]}',
    "QUOTE": 'it\'s "x" $HOME ${X} \\ # end\\',
    "DOLLARS": "$PATH ${PATH:-x} $(id) `id`",
    "EMOJI": "\U0001f600 \u00e4\u00f6",
    "EMPTY": "",
    "BLANKS": "  two  \t",
    "RETURN": "a\rb",
}


def test_values_of_variables_arrive_as_they_were(client: modal.Client) -> None:
    """Whatever quotes, dollars and backslashes are in them."""
    app = modal.App()
    variables = function(app, modal.Image.debian_slim().env(NASTY), "variables")
    with app.run(client=client):
        found = variables.remote()
    assert {name: found[name] for name in NASTY} == NASTY


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (lambda image: image.env({"JSON": '{\n "a": 1\n}'}), r"the value of JSON: .*modal\.Secret\.from_dict"),
        (lambda image: image.run_commands("exit 3"), "exit code 3"),
        (lambda image: image.dockerfile_commands("WORKDIR"), "WORKDIR needs a path"),
        (lambda image: image.dockerfile_commands("FORM x"), "'FORM' is not an instruction"),
        (lambda image: image.run_commands('echo "'), "exit code 2"),
    ],
)
def test_an_image_that_cannot_be_built(client: modal.Client, image: Any, said: str) -> None:
    """The build fails at once with what is wrong, each time that it is asked for."""
    for _ in range(2):
        began = time.monotonic()
        with pytest.raises(modal.exception.RemoteError, match=said), built(image(modal.Image.debian_slim()), client):
            pass
        assert time.monotonic() - began < 10


def test_a_dockerfile_and_commands_that_install(client: modal.Client, wheels: Path, tmp_path: Path) -> None:
    """pip in RUN, in a list of commands, in lines that go on over comments, and in a Dockerfile of one's own."""
    (tmp_path / "Dockerfile").write_text(
        f"ARG SERIES={'.'.join(platform.python_version_tuple()[:2])}\n"
        "FROM python:${SERIES}-slim\nARG WANTED=1.0\nCOPY *.whl /wheels/\n"
        "RUN pip install --no-index \\\n\n  # where they are\n  --find-links /wheels tinypkg==$WANTED\n"
        "env lower=1 B=${NOPE:-default}\nWORKDIR srv/app\nENV OLD style value\n"
    )
    for wheel in wheels.iterdir():
        shutil.copy(wheel, tmp_path)
    image = modal.Image.from_dockerfile(tmp_path / "Dockerfile", context_dir=tmp_path)
    newer = image.run_commands("make || true", "cd /wheels && pip install --no-index -f . tinypkg==2.0 && echo done")
    app = modal.App()
    old, new, variables = (
        function(app, image, "version"),
        function(app, newer, "version"),
        function(app, image, "variables"),
    )
    with app.run(client=client):
        assert old.remote("tinypkg") == "1.0"
        assert new.remote("tinypkg") == "2.0"
        found = variables.remote()
    assert {name: found[name] for name in ("lower", "B", "OLD")} == {"lower": "1", "B": "default", "OLD": "style value"}


@pytest.mark.local_only
def test_options_without_effect_are_named(client: modal.Client) -> None:
    """Options that this machine cannot honour are in the function's log, and steps of a registry's image too."""
    app = modal.App()
    image = modal.Image.from_registry("example.com/some:image").entrypoint(["/bin/entry"])
    options: dict[str, Any] = {
        "region": "us-east",
        "i6pn": True,
        "experimental_options": {"vroom": "1"},
        "cloud": "aws",
    }
    missing = app.function(image=image, name="missing", **options)(load("image_app").variables)
    with app.run(client=client):
        assert missing.remote()
        request = api_pb2.AppFetchLogsRequest(app_id=app.app_id or "", limit=1_000)
        request.since.GetCurrentTime()
        request.since.seconds -= 600
        said = "".join(item.data for b in rpc(client, "AppFetchLogs", request).batches for item in b.items)
    assert "missing: the local control plane did not execute 2 steps of the image: FROM example.com/some:image" in said
    assert "missing asks for i6pn and runs without" in said
    assert "missing asks for cloud=aws and runs on this machine" in said
    assert "missing asks for region=us-east and runs on this machine" in said
    assert "missing has the experimental option vroom=1, which has no effect here" in said


@pytest.mark.local_only
def test_a_package_that_cannot_be_had(client: modal.Client) -> None:
    """The build fails with pip's own words, and says what helps where there is no package index."""
    image = modal.Image.debian_slim().pip_install("no-such-package-here", extra_options="--no-index")
    with pytest.raises(modal.exception.RemoteError) as raised, built(image, client):
        pass
    said = str(raised.value)
    assert "Image build for im-" in said
    assert "No matching distribution found for no-such-package-here" in said
    assert "find_links" in said


def test_constraints_hold(client: modal.Client, base: modal.Image, tmp_path: Path) -> None:
    """A file of constraints in the image decides on the version, also over this machine's; a conflict is explained."""
    (tmp_path / "constraints.txt").write_text("tinypkg==1.0\nnatsort==99.0\nnobody-asks-for-this==1.0\n")
    image = base.add_local_file(tmp_path / "constraints.txt", "/etc/constraints.txt", copy=True)
    options = "--no-index --constraint /etc/constraints.txt"
    app = modal.App()
    held = function(app, image.uv_pip_install("tinypkg", "natsort", find_links="/wheels", extra_options=options))
    with app.run(client=client):
        assert [held.remote(name)["here"] for name in ("tinypkg", "natsort")] == ["1.0", "99.0"]
    wrong = image.uv_pip_install("tinypkg==2.0", find_links="/wheels", extra_options=options)
    with pytest.raises(modal.exception.RemoteError) as raised, built(wrong, client):
        pass
    assert "tinypkg==2.0" in str(raised.value)
    assert "The user requested (constraint) tinypkg==1.0" in str(raised.value)


@needs_sdk("1.6")
def test_the_log_of_a_build_can_be_fetched_later(client: modal.Client) -> None:
    """Image.logs.fetch gives the log of the last layer, or of as many as are asked for."""
    image = modal.Image.debian_slim().run_commands("echo one").run_commands("echo two")
    with built(image, client):
        assert "echo two" in "".join(entry.message for entry in image.logs.fetch())
        both = "".join(entry.message for entry in image.logs.fetch(layers=2))
    assert both.index("echo one") < both.index("echo two")


def test_an_image_is_built_once(client: modal.Client, base: modal.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same definition is the same image, unless told to build it again; ignore_cache leaves the cached one be."""

    def build(**how: Any) -> str:
        with built(base.run_commands("true $SETTING", env={"SETTING": "1"}, **how), client) as image:
            return str(image.object_id)

    first = build()
    assert build() == first
    forced = build(force_build=True)
    assert forced != first
    assert build() == forced
    monkeypatch.setenv("MODAL_IGNORE_CACHE", "1")
    assert build() != forced
    monkeypatch.delenv("MODAL_IGNORE_CACHE")
    assert build() == forced


@pytest.mark.local_only
def test_secrets_of_a_layer_stay_out_of_its_log(client: modal.Client, base: modal.Image) -> None:
    """A Secret is among the installer's variables, and blotted out where pip repeats it."""
    secret = modal.Secret.from_dict({"PIP_FIND_LINKS": "/wheels/hidden-away"})
    image = base.pip_install("tinypkg==1.0", find_links="/wheels", extra_options="--no-index", secrets=[secret])
    with built(image, client):
        said = log_of(image)
    assert "hidden-away" not in said
    assert "***" in said


def test_a_published_image_is_found_by_name(client: modal.Client, base: modal.Image, name: str) -> None:
    """publish gives an image a name; from_name is that image, with all that is in it."""
    image = base.pip_install("tinypkg==2.0", find_links="/wheels", extra_options="--no-index")
    with built(image, client):
        image.publish(name, client=client)
    app = modal.App()
    found = function(app, modal.Image.from_name(name, client=client), "version")
    with app.run(client=client):
        assert found.remote("tinypkg") == "2.0"


def test_a_function_builds_an_image(client: modal.Client, name: str) -> None:
    """run_function runs once, in the image so far, with its Secrets and Volumes; what it writes is in the image."""
    module = load("image_app")
    volume = modal.Volume.from_name(name, create_if_missing=True)
    image = (
        modal.Image.debian_slim()
        .env({"FROM_BELOW": "1"})
        .run_function(
            module.write,
            args=("hello",),
            secrets=[modal.Secret.from_dict({"BUILD_SECRET": "known"})],
            volumes={"/opt/a-volume": volume},
        )
    )
    app = modal.App()
    read = function(app, image, "read")
    try:
        with app.run(client=client):
            assert read.remote(module.WRITTEN) == "hello known"
            assert read.remote(module.WRITTEN.replace("file.txt", "link")) == "hello known"
            assert volume.listdir("/")[0].path == "from-the-build"
    finally:
        modal.Volume.objects.delete(name, client=client)


def test_a_function_that_fails_to_build(client: modal.Client) -> None:
    """The build fails with the function's exception."""
    image = modal.Image.debian_slim().run_function(load("image_app").refuse)
    with pytest.raises(modal.exception.RemoteError, match="this build function refuses"), built(image, client):
        pass


@pytest.mark.local_only
def test_images_outlive_the_control_plane(wheels: Path, tmp_path: Path) -> None:
    """With a state folder a new control plane has the image, its packages and its name, and builds nothing."""
    image_id = ""
    for _ in range(2):
        with LocalModal(state_dir=tmp_path / "state") as local, client_of(local.url, local.env) as client:
            app = modal.App()
            image = modal.Image.debian_slim().add_local_dir(wheels, "/wheels", copy=True)
            image = image.pip_install("tinypkg==1.0", find_links="/wheels", extra_options="--no-index")
            found = function(app, image, "version")
            with app.run(client=client):
                assert found.remote("tinypkg") == "1.0"
                if not image_id:
                    image_id = image.object_id
                    image.publish("kept", client=client)
                assert image.object_id == image_id
                assert modal.Image.from_name("kept", client=client).build(app).object_id == image_id


_BUILD = """
import modal, sys
app = modal.App()
with app.run():
    modal.Image.debian_slim().pip_install("tinypkg", index_url=sys.argv[1]).build(app)
"""


@pytest.mark.local_only
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_a_build_that_is_cut_short_leaves_nothing(how: signal.Signals, tmp_path: Path) -> None:
    """A control plane that ends in the middle of a build takes pip with it, and no half of a layer is ever used."""
    images = tmp_path / "state" / "images"
    with socket.create_server(("127.0.0.1", 0)) as silent, LocalModal(state_dir=tmp_path / "state") as local:
        silent.settimeout(30)
        index = f"http://127.0.0.1:{silent.getsockname()[1]}/simple"
        # A client of its own, for one whose control plane is gone goes on trying for a minute.
        builder = subprocess.Popen(
            [sys.executable, "-c", _BUILD, index], env={**os.environ, **local.env}, stderr=subprocess.DEVNULL
        )
        try:
            asking, _ = silent.accept()
            with asking:
                asking.settimeout(20)
                assert len(list(images.glob("draft-*"))) == 1
                os.kill(local.pid, how)
                # What pip asks for, and then the end of it: pip is gone.
                while asking.recv(4096):
                    pass
        finally:
            builder.kill()
            builder.wait()
    if how is signal.SIGKILL:
        with LocalModal(state_dir=tmp_path / "state"):
            assert not list(images.iterdir())
    assert not list(images.iterdir())
