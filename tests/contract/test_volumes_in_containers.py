"""Modal Volumes as functions see them: mounted, committed, reloaded."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterator

import modal
import pytest

from tests.contract.deploying import Deployed
from tests.support import in_gvisor, wait_until


@pytest.fixture(scope="module", params=[1, 2], ids=["v1", "v2"])
def version(request: pytest.FixtureRequest) -> int:
    value: int = request.param
    return value


@pytest.fixture(scope="module")
def deployed(client: modal.Client, version: int) -> Iterator[Deployed]:
    name = f"test-volume-app-v{version}"
    os.environ.update(TEST_VOLUME=name, TEST_VOLUME_VERSION=str(version))
    app = Deployed("volume_app", name, client)
    yield app
    app.stop()
    for each in (name, f"{name}-inner"):
        modal.Volume.objects.delete(each, client=client)


@pytest.fixture
def volume(deployed: Deployed, client: modal.Client) -> modal.Volume:
    return modal.Volume.from_name(deployed.name, client=client)


def content(volume: modal.Volume, path: str) -> bytes:
    try:
        return b"".join(volume.read_file(path))
    except FileNotFoundError:
        return b""


def test_a_commit_is_seen_outside_and_after_a_reload_in_other_containers(
    deployed: Deployed, volume: modal.Volume
) -> None:
    """What a function commits is read by a client at once, by a running container when it reloads."""
    assert deployed.call("read", "seen/file", False) is None
    deployed.call("write", "seen/file", "committed", True)

    assert content(volume, "seen/file") == b"committed"
    assert deployed.call("read", "seen/file", False) is None
    assert deployed.call("read", "seen/file", True) == "committed"


def test_links_are_followed_from_outside(deployed: Deployed, volume: modal.Volume) -> None:
    """A client reads, lists, writes and removes through a linked directory; other links say why it cannot."""
    deployed.call("write", "runs/42/metrics", "first", True)
    deployed.call("link", {"runs/latest": "42", "runs/absolute": "/vol/data/runs/42", "runs/loop": "loop"})
    assert content(volume, "runs/latest/metrics") == b"first"
    assert [entry.path for entry in volume.listdir("runs/latest")] == ["runs/latest/metrics"]
    with volume.batch_upload() as batch:
        batch.put_file(io.BytesIO(b"second"), "runs/latest/more")
    assert content(volume, "runs/42/more") == b"second"
    volume.copy_files(["runs/latest/more"], "runs/copy")
    assert content(volume, "runs/copy") == b"second"
    volume.remove_file("runs/latest/more")
    volume.remove_file("runs/latest", recursive=True)
    assert [entry.path for entry in volume.listdir("runs/42")] == ["runs/42/metrics"]
    with pytest.raises(FileNotFoundError, match="points at '/vol/data/runs/42', so only a container"):
        list(volume.read_file("runs/absolute/metrics"))
    with pytest.raises(modal.exception.InvalidError, match="Too many levels of symbolic links"):
        list(volume.read_file("runs/loop"))


def test_what_a_client_uploads_is_seen_after_a_reload(deployed: Deployed, volume: modal.Volume) -> None:
    """A file that was put from outside is in the container's directory after its reload."""
    with volume.batch_upload() as batch:
        batch.put_file(io.BytesIO(b"from outside"), "/uploaded")
    assert deployed.call("read", "uploaded", True) == "from outside"


def test_a_growing_file_is_readable_while_it_grows(deployed: Deployed, volume: modal.Volume) -> None:
    """A log that is committed while it is open is read line by line from outside, long before its writer ends."""
    call = deployed.function("append").spawn("log", 8, 0.5)
    wait_until(lambda: content(volume, "log").startswith(b"0\n"), 60, "the first line", interval=0.1)
    assert len(content(volume, "log").splitlines()) < 8
    call.get(timeout=60)
    assert content(volume, "log").splitlines() == [b"%d" % n for n in range(8)]


def test_a_reload_fails_while_a_file_is_open(deployed: Deployed) -> None:
    """The SDK's RuntimeError says that files are open, and which."""
    deployed.call("write", "open", "x", True)
    said = deployed.call("reload_with_an_open_file", "open")
    assert "there are open files preventing the operation" in said


def test_uncommitted_changes_are_committed_when_the_container_ends(deployed: Deployed, volume: modal.Volume) -> None:
    """A container that ends leaves nothing uncommitted behind."""
    deployed.call("write_and_end", "last", "words")
    wait_until(lambda: content(volume, "last") == b"words", 30, "the commit at the end", interval=0.1)


def test_changes_are_committed_in_the_background(deployed: Deployed, volume: modal.Volume) -> None:
    """What a container wrote without committing is there a few seconds later, although the container lives on."""
    deployed.call("write", "background", "later", False)
    wait_until(lambda: content(volume, "background") == b"later", 30, "a background commit", interval=0.1)


def test_a_read_only_volume_is_not_written_to(deployed: Deployed, volume: modal.Volume) -> None:
    """Writing to a read-only mount is an OSError in the function, and nothing is committed."""
    assert "OSError" in deployed.call("write_although_read_only", "forbidden")
    assert content(volume, "forbidden") == b""


def test_a_time_and_a_mode_alone_are_seen_by_the_next_container(deployed: Deployed) -> None:
    """What a function changed of a file's time and a folder's mode is kept without its asking for a commit."""
    deployed.call("write", "old/file", "x", True)
    deployed.call("touch", "old/file", 1_100_000_000, 0o711)
    wait_until(lambda: deployed.call("status", "old/file")[0] == 1_100_000_000, 30, "the commit", interval=0.5)
    assert deployed.call("status", "old/file")[3] == 0o711


def test_a_sparse_file_is_one_everywhere(deployed: Deployed, volume: modal.Volume) -> None:
    """A gigabyte of holes is committed in a moment, takes no room in the next container, and is read as zeros."""
    started = time.monotonic()
    deployed.call("write_sparse", "sparse", 2**30)
    _, size, blocks, _ = deployed.call("status", "sparse")
    # gVisor computes the blocks of a file from its size.
    assert (size, blocks < 1000 or in_gvisor()) == (2**30, True)
    assert time.monotonic() - started < 20
    assert next(iter(volume.read_file("sparse")))[:4] == bytes(4)


@pytest.mark.parametrize("order", ["outer_first", "inner_first"])
def test_volumes_inside_each_other(deployed: Deployed, volume: modal.Volume, order: str, client: modal.Client) -> None:
    """Whichever is declared first, each file lands in its volume, and nothing else does."""
    inner = modal.Volume.from_name(f"{deployed.name}-inner", client=client)
    assert order in deployed.call(order, order)
    wait_until(lambda: content(inner, order) == b"inner", 30, "the commit at the end", interval=0.1)
    wait_until(lambda: content(volume, order) == b"outer", 30, "the commit at the end", interval=0.1)
    assert not [entry for entry in volume.listdir("/", recursive=True) if entry.path.startswith("nested")]


@pytest.mark.skipif(not hasattr(modal.Volume, "with_mount_options"), reason="an SDK that mounts whole volumes only")
def test_a_part_of_a_volume_is_mounted(deployed: Deployed, volume: modal.Volume) -> None:
    """A function that mounts a sub_path sees what is below it and nothing else, and writes there."""
    with volume.batch_upload() as batch:
        batch.put_file(io.BytesIO(b"1"), "/below/it/there")
        batch.put_file(io.BytesIO(b"2"), "/beside")
    assert deployed.call("write_below", "new", "3") == ["new", "there"]
    assert content(volume, "below/it/new") == b"3"
