"""Where Volumes may be mounted: one spelling of each path, and nothing that hides what a container needs."""

from __future__ import annotations

import posixpath
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modalflow.config.mounts import MODAL_VOLUMES, RESERVED, check, check_all, conflict, hidden, is_inside, normal_path
from modalflow.errors import ConfigError
from modalflow.names import BUNDLES_ROOT, DAGS_MOUNT, LOGS_MOUNT, OWN_FOLDER


@pytest.mark.parametrize(
    ("path", "normal"),
    [
        ("/vol", "/vol"),
        ("/vol/", "/vol"),
        ("//vol", "/vol"),
        ("///vol//logs//", "/vol/logs"),
        ("/data/./models/.", "/data/models"),
        ("/a/../data", "/data"),
        ("/../../data", "/data"),
        (PurePosixPath("/root/models"), "/root/models"),
        ("/tmp/hf", "/tmp/hf"),
        ("/opt2/modalflow", "/opt2/modalflow"),
        ("/opt/modalflow2", "/opt/modalflow2"),
        ("/usr/local/share/nltk", "/usr/local/share/nltk"),
        ("/usr/src/python3", "/usr/src/python3"),
        ("/é/任务 x", "/é/任务 x"),
    ],
)
def test_a_path_has_one_spelling(path: object, normal: str) -> None:
    """Paths that users choose are taken, `/vol` among them, however they are written."""
    assert check("volumes", path) == normal


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/opt", "'/opt' contains '/opt/modalflow', and modalflow keeps logs and DAG files there"),
        ("/opt/modalflow", "'/opt/modalflow' is '/opt/modalflow'"),
        ("/opt/modalflow/", "is '/opt/modalflow'"),
        ("//opt//modalflow/logs/x", "'/opt/modalflow/logs/x' is inside '/opt/modalflow'"),
        ("/a/../opt/./modalflow/dags", "is inside '/opt/modalflow'"),
        ("/", "'/' contains everything"),
        ("//", "'/' contains everything"),
        ("/..", "'/' contains everything"),
        ("/root", "'/root' contains '/root/modalflow'"),
        ("/root/modalflow", "modalflow's code"),
        ("/tmp/", "Modal mounts nothing there"),
        ("/usr", "'/usr' contains '/usr/bin', and the image's programs"),
        ("/usr/local", "the image's programs"),
        ("/usr/local/lib/python3.12/site-packages", "and the image's Python is there"),
        ("/usr/lib/python3", "and the image's Python is there"),
        ("/etc", "the image's programs"),
        ("/proc/1", "the kernel's files"),
        ("/dev/shm", "the kernel's files"),
        ("/__modal/volumes", "Modal's runtime"),
        ("/pkg", "Modal's runtime"),
        ("models", "it is not absolute"),
        ("./models", "it is not absolute"),
        ("../models", "it is not absolute"),
        ("~/models", "it is not absolute"),
        ("", "it is not absolute"),
        (" /models", "it is not absolute"),
        ("/mo\0dels", "control characters"),
        ("/models\n", "control characters"),
        ("/\udce9", "UTF-8"),
        ("/" + "é" * 128, "longer than"),
        ("/a" * 2000, "longer than"),
        (None, "of type NoneType"),
        (b"/models", "of type bytes"),
    ],
)
def test_what_is_reserved_is_refused_with_the_reason(path: object, said: str) -> None:
    """The error names the path, what it would hide and all that is reserved."""
    with pytest.raises(ConfigError) as refused:
        check("volumes", path)
    assert said in str(refused.value) and str(refused.value).startswith("a path in volumes is ")


_NAMES = st.sampled_from(["opt", "modalflow", "logs", "vol", "usr", "local", "lib", "root", "tmp", "a", ".", "..", ""])
_PATHS = st.lists(_NAMES, min_size=1, max_size=5).map(lambda parts: "/" + "/".join(parts))


@given(_PATHS)
@example("//a/../..//opt")
def test_the_normal_form_is_modals(path: str) -> None:
    """It is its own normal form, it is what the kernel makes of the path, and Modal's SDK takes it as canonical."""
    normal = normal_path(path)
    assert normal == normal_path(normal) == posixpath.abspath(normal) == PurePosixPath(normal).as_posix()
    assert normal == "/" + posixpath.normpath(path).lstrip("/")


@given(_PATHS)
def test_nothing_that_is_accepted_hides_what_is_needed(path: str) -> None:
    """No mount contains, equals or lies in a folder of modalflow's, whatever way it is written."""
    normal = normal_path(path)
    if not conflict(normal):
        for own in (OWN_FOLDER, LOGS_MOUNT, DAGS_MOUNT, BUNDLES_ROOT, "/root/modalflow"):
            assert not is_inside(own, normal) and not is_inside(normal, own)
        assert not any(is_inside(reserved.folder, normal) for reserved in RESERVED)


@given(st.lists(_PATHS, max_size=4))
def test_two_mounts_are_never_at_one_path(paths: list[str]) -> None:
    """Two spellings of a path are refused: one of the two Volumes would be missing without a word."""
    mounted: dict[str, Any] = dict.fromkeys(paths, "volume")
    try:
        found = check_all("volumes", mounted)
    except ConfigError:
        return
    assert len(found) == len(mounted) and list(found) == sorted(found)


def test_users_mounts_may_be_nested() -> None:
    """Modal mounts a Volume inside another one; only what modalflow needs is reserved."""
    assert list(check_all("volumes", {"/data/models/": 1, "/data": 2})) == ["/data", "/data/models"]


def test_a_link_of_the_image_that_leads_to_modalflow_is_noticed() -> None:
    """A Volume at `/data/modalflow` of an image in which `/data` leads to `/opt` would get modalflow's files."""
    assert not hidden(OWN_FOLDER, OWN_FOLDER) and not hidden("/data/opt/modalflow", OWN_FOLDER)
    assert "is in a Volume of the profile or of the task" in hidden(f"{MODAL_VOLUMES}/vo-1/x", OWN_FOLDER)
