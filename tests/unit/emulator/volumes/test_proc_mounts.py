"""Which volume a path that a container has open belongs to."""

from __future__ import annotations

import pytest

from modalflow.emulator.containers.launch.launcher import points_in
from modalflow.emulator.volumes.proc_mounts import in_volume

POINTS = {
    "/__modal/volumes/vo-1": "/__modal/volumes/vo-1",
    "/__modal/volumes/vo-1/cache": "/__modal/volumes/vo-2",
    "/opt": "/__modal/volumes/vo-3/below",
}


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/__modal/volumes/vo-1/file", "/__modal/volumes/vo-1/file"),
        ("/__modal/volumes/vo-1", "/__modal/volumes/vo-1/"),
        ("/__modal/volumes/vo-1/cache/file", "/__modal/volumes/vo-2/file"),
        ("/__modal/volumes/vo-1/cached", "/__modal/volumes/vo-1/cached"),
        ("(unreachable)/__modal/volumes/vo-1/file", "/__modal/volumes/vo-1/file"),
        ("/opt/file", "/__modal/volumes/vo-3/below/file"),
        ("/data/opt", None),
        ("/optional/file", None),
        ("pipe:[1]", None),
    ],
)
def test_a_path_is_the_innermost_volumes(target: str, expected: str | None) -> None:
    """A volume inside another one, or mounted over a folder of the host, is found by where it is mounted."""
    assert in_volume(target, POINTS) == expected


def test_what_lies_inside_a_volume() -> None:
    """Mount paths below a volume's, as paths in the volume, whatever their slashes; neighbours are not below it."""
    others = ["/data", "/data/a/cache/", "/database", "/data/b", "/other"]
    assert points_in("/data/", "", others) == ["a/cache", "b"]
    assert points_in("/data", "/part/", others) == ["part/a/cache", "part/b"]
