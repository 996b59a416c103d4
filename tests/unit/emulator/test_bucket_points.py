"""Folders that a bucket gets for what a container mounts inside it."""

from __future__ import annotations

from pathlib import Path

import pytest
from grpclib import GRPCError

from modalflow.emulator.services.cloud_buckets import CloudBuckets


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bucket's folder."""
    folder = tmp_path.resolve() / "bucket"
    folder.mkdir()
    return folder


def test_they_are_there_as_long_as_a_container_has_them(folder: Path) -> None:
    """Two containers share them; what the bucket had before, or has in it at the end, stays."""
    buckets = CloudBuckets(folder.parent, {})
    (folder / "had").mkdir()
    with buckets.with_points(folder, ["a/b", "had/c", "full"]):
        with buckets.with_points(folder, ["a/b"]):
            (folder / "full" / "file").touch()
        assert (folder / "a" / "b").is_dir()
        assert (folder / "had" / "c").is_dir()
    assert sorted(path.name for path in folder.rglob("*")) == ["file", "full", "had"]


def test_none_is_made_through_a_link_that_leads_out(folder: Path) -> None:
    """A container can put a link into its bucket: nothing is made where that leads; within the bucket it may lead."""
    buckets = CloudBuckets(folder.parent, {})
    outside = folder.parent / "outside"
    outside.mkdir()
    (folder / "link").symlink_to(outside)
    (folder / "inner").mkdir()
    (folder / "alias").symlink_to("inner")
    with pytest.raises(GRPCError, match="leads out"), buckets.with_points(folder, ["kept/made", "link/made"]):
        pass
    assert list(outside.iterdir()) == []
    assert not (folder / "kept").exists()
    with buckets.with_points(folder, ["alias/made"]):
        assert (folder / "inner" / "made").is_dir()
    assert list((folder / "inner").iterdir()) == []
