"""Cloud buckets, which here are folders: seen by all containers at once, by prefix, to be read only where said."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import modal
import pytest
from modal.exception import InvalidError

from modalflow.emulator.local import LocalModal
from tests.contract.deploying import Deployed
from tests.sdk import client_of

pytestmark = pytest.mark.local_only


@pytest.fixture
def compute(client: modal.Client, name: str) -> Iterator[Deployed]:
    deployed = Deployed("compute_app", name, client)
    yield deployed
    deployed.stop()


def test_writes_are_seen_at_once_by_others(compute: Deployed) -> None:
    """Two containers with the same bucket see each other's files without a commit; a prefix is a part of it."""
    whole = modal.CloudBucketMount("a-bucket")
    part = modal.CloudBucketMount("a-bucket", key_prefix="deep/er/", read_only=True)
    writer = compute.function("write").with_options(volumes={"/mnt/bucket": whole})
    reader = compute.function("read").with_options(volumes={"/mnt/part": part})
    assert writer.remote("/mnt/bucket/deep/er/file.txt", "one") == "one"
    assert reader.remote("/mnt/part/file.txt") == "one"
    writer.remote("/mnt/bucket/deep/er/file.txt", "two")
    assert reader.remote("/mnt/part/file.txt") == "two"
    with pytest.raises(OSError, match="Read-only"):
        compute.function("write").with_options(volumes={"/mnt/part": part}).remote("/mnt/part/other.txt", "no")


def test_a_bucket_is_a_folder_of_the_users(tmp_path: Path, name: str) -> None:
    """With --bucket NAME=FOLDER a bucket is that folder, for functions that are defined with it."""
    (tmp_path / "given.txt").write_text("given")
    with LocalModal(buckets=[f"given={tmp_path}"]) as other, client_of(other.url, other.env) as client:
        app = modal.App(name)

        def copy() -> str:
            from pathlib import Path

            text = Path("/data/given.txt").read_text()
            Path("/data/made.txt").write_text(text * 2)
            return text

        mounts: dict[str | os.PathLike[str], modal.CloudBucketMount] = {"/data": modal.CloudBucketMount("given")}
        app.function(serialized=True, name="copy", volumes=mounts)(copy)  # type: ignore[arg-type]
        app.deploy(client=client)
        assert modal.Function.from_name(name, "copy", client=client).remote() == "given"
    assert (tmp_path / "made.txt").read_text() == "givengiven"


def test_a_prefix_does_not_lead_out(compute: Deployed) -> None:
    """A key prefix with '..' is refused before anything is mounted."""
    out = modal.CloudBucketMount("a-bucket", key_prefix="../../")
    with pytest.raises(InvalidError, match="key_prefix"):
        compute.function("read").with_options(volumes={"/mnt/out": out}).remote("/mnt/out/file.txt")
