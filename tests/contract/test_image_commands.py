"""Commands of images: they run in layers over this machine's root, and this machine stays as it is."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import modal
import pytest

from modalflow.emulator.local import LocalModal
from modalflow.emulator.processes.container_spec import Isolation
from tests.contract.deploying import load
from tests.contract.isolated import problem_with
from tests.contract.test_images import NASTY, built, function, log_of
from tests.sdk import client_of
from tests.support import wait_until

pytestmark = [
    pytest.mark.local_only,
    pytest.mark.skipif(bool(problem := problem_with(Isolation.ROOT)), reason=f"no isolation by root here: {problem}"),
]

#: A file of every Debian that nothing needs.
REMOVED = "/etc/debian_version"


@pytest.fixture(scope="module")
def listing() -> Iterator[modal.Client]:
    """A client of a control plane that lists the commands of images."""
    with (
        LocalModal(as_default=False, list_image_commands=True) as local,
        client_of(local.url, local.env) as connected,
    ):
        yield connected


def test_commands_build_an_image_and_change_nothing_here(client: modal.Client, tmp_path: Path) -> None:
    """Containers have what commands of all layers wrote, removed and copied; this machine has none of it."""
    (tmp_path / "tool").write_text("#!/bin/sh\necho a tool\n")
    image = (
        modal.Image.debian_slim()
        .run_commands("mkdir -p /opt/made && echo first > /opt/made/file", f"rm -f {REMOVED}; touch /usr/share/made")
        .dockerfile_commands(
            "ARG GREETING=hello",
            # A symlink to /usr/bin on most machines.
            "COPY --chmod=755 tool /bin/made-tool",
            "WORKDIR /srv/made",
            'SHELL ["/bin/bash", "-c"]',
            'RUN <<< "$GREETING" cat > here && /bin/made-tool >> here',
            "RUN cat >> here <<EOF\nfrom a $0\nEOF",
            "USER nobody",
            "RUN id -un > /tmp/made-user",
            "USER root",
            context_dir=tmp_path,
        )
        .run_commands("echo second >> /opt/made/file && rm /usr/share/made")
    )
    app = modal.App()
    run = function(app, image, "run")
    with app.run(client=client):
        found = run.remote(f"cd /srv/made; cat here /tmp/made-user /opt/made/file; ls {REMOVED} /usr/share/made; true")
    assert found.split() == ["hello", "a", "tool", "from", "a", "/bin/bash", "nobody", "first", "second"]
    assert not any(Path(path).exists() for path in ("/opt/made", "/bin/made-tool", "/srv/made", "/tmp/made-user"))
    assert Path(REMOVED).exists() or not Path("/etc/os-release").exists()


def test_a_command_that_fails(client: modal.Client) -> None:
    """The SDK shows the command, its exit code and its last lines; the log has all of them."""
    image = modal.Image.debian_slim().run_commands("echo one; echo two >&2; exit 3")
    with pytest.raises(modal.exception.RemoteError) as raised, built(image, client):
        pass
    assert "RUN echo one; echo two >&2; exit 3\nended with exit code 3. Its last lines:" in str(raised.value)
    assert {"one", "two"} <= set(str(raised.value).splitlines())


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('RUN ["no-such-program", "x"]', "ended with exit code"),
        ("RUN --mount=type=secret,id=x cat /run/secrets/x", "the option --mount=type=secret is not supported"),
        (
            'SHELL ["/usr/local/bin/_dockerfile_shell.sh"]\nRUN micromamba install x',
            "build over an archive of its image",
        ),
        ("ADD https://example.com/x /x", "ADD only copies files here"),
        ("USER no-such-user\nRUN true", "no user 'no-such-user'"),
    ],
)
def test_commands_that_are_refused(client: modal.Client, line: str, said: str) -> None:
    """A build fails with the reason if a line needs something that is not here."""
    image = modal.Image.debian_slim().dockerfile_commands(*line.split("\n"))
    with pytest.raises(modal.exception.RemoteError, match=said), built(image, client):
        pass


def test_variables_of_commands(client: modal.Client) -> None:
    """A command has the image's variables as they were, with quotes, dollars and backslashes, and the Secrets."""
    secret = modal.Secret.from_dict({"TOKEN": "lines\nof 'a' $secret"})
    image = (
        modal.Image.debian_slim()
        .env(NASTY)
        .run_commands("env -0 > /opt/variables; echo $TOKEN", "pip --version", secrets=[secret])
    )
    app = modal.App()
    run = function(app, image, "run")
    with app.run(client=client):
        written = base64.b64decode(run.remote("base64 /opt/variables")).decode()
        found = dict(pair.split("=", 1) for pair in written.split("\0") if pair)
        said = log_of(image)
    assert {name: found[name] for name in NASTY} == NASTY
    assert found["TOKEN"] == "lines\nof 'a' $secret"
    assert "pip 2" in said


def test_installed_debian_packages_need_no_network(client: modal.Client) -> None:
    """apt_install of what is here already runs nothing."""
    image = modal.Image.debian_slim().apt_install("dpkg", "apt")
    with built(image, client):
        assert log_of(image).count("not needed: the packages are installed already") == 2


def test_an_image_is_built_once_for_all_starts(tmp_path: Path) -> None:
    """A second build runs nothing, also after a restart of the control plane, and a killed build leaves nothing."""
    app_image = load("image_app")
    stamps = set()
    state = tmp_path / "state"
    image = modal.Image.debian_slim().run_commands("cat /proc/sys/kernel/random/uuid > /opt/stamp")
    for _ in range(2):
        with LocalModal(state_dir=state, isolation="root") as local, client_of(local.url, local.env) as client:
            app = modal.App()
            read = app.function(image=image, name="read")(app_image.read)
            with app.run(client=client):
                stamps.add(read.remote("/opt/stamp"))
    assert len(stamps) == 1
    before = {path.name for path in (state / "images").iterdir()}
    with LocalModal(state_dir=state, isolation="root") as local:
        builder = subprocess.Popen(
            [sys.executable, "-c", _SLEEP], env={**os.environ, **local.env}, stderr=subprocess.DEVNULL
        )
        try:
            wait_until(lambda: list((state / "images").glob("draft-*/files/opt/sleeping")), 30)
            os.kill(local.pid, signal.SIGKILL)
        finally:
            builder.kill()
            builder.wait()
    wait_until(lambda: not _commands_with("sleep\x0098765"), 20)
    with LocalModal(state_dir=state, isolation="root"):
        assert {path.name for path in (state / "images").iterdir()} == before


_SLEEP = """
import modal
app = modal.App()
with app.run():
    modal.Image.debian_slim().run_commands("touch /opt/sleeping; sleep 98765").build(app)
"""


def _commands_with(text: str) -> list[Path]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text in path.read_text():
                found.append(path)
        except OSError:
            continue
    return found


def test_listing_runs_nothing(listing: modal.Client) -> None:
    """With the option, apt_install, run_commands and Dockerfile lines are in the log; the build succeeds."""
    image = (
        modal.Image.debian_slim()
        .apt_install("nothing-of-that-name")
        .run_commands("make install")
        .dockerfile_commands("USER nobody")
    )
    with built(image, listing):
        assert "USER nobody\n   not executed here" in log_of(image)


def test_listed_commands_are_named_where_they_are_missed(listing: modal.Client) -> None:
    """Steps that were not executed are in the function's log and in a failed import."""
    app = modal.App()
    image = modal.Image.debian_slim().run_commands("make tinypkg").pip_install("grpclib")
    missing = app.function(image=image, name="missing")(load("image_app").version)
    expected = r"No module named 'tinypkg' .*not execute 1 step.*RUN make tinypkg"
    with app.run(client=listing), pytest.raises(ModuleNotFoundError, match=expected):
        missing.remote("tinypkg")
    with built(image, listing):
        pass


def test_other_kinds_of_isolation_refuse_commands() -> None:
    """Without isolation by root a command fails the build, with the ways out; installations by pip do not."""
    lines: dict[str, Any] = {"match": r"isolation 'plain'.*--isolation root or gvisor.*--list-image-commands"}
    with (
        LocalModal(as_default=False, isolation="plain") as local,
        client_of(local.url, local.env) as client,
    ):
        made = modal.Image.debian_slim().run_commands("make install")
        with pytest.raises(modal.exception.RemoteError, **lines), built(made, client):
            pass
        with built(modal.Image.debian_slim().pip_install("grpclib").apt_install("dpkg"), client):
            pass
