"""Modal Volumes, through the SDK, from outside and from inside of containers."""

from __future__ import annotations

import io
import os
from pathlib import Path

import modal
import pytest
from modal.exception import AlreadyExistsError, NotFoundError

BLOCK = 8 * 1024 * 1024


def upload(volume: modal.Volume, *, force: bool = False, **files: bytes) -> None:
    """Put files whose paths are the keywords, ``__`` standing for ``/``."""
    with volume.batch_upload(force=force) as batch:
        for path, content in files.items():
            batch.put_file(io.BytesIO(content), "/" + path.replace("__", "/"))


def read(volume: modal.Volume, path: str) -> bytes:
    return b"".join(volume.read_file(path))


def paths(volume: modal.Volume, path: str = "/", *, recursive: bool = True) -> list[str]:
    return sorted(entry.path for entry in volume.listdir(path, recursive=recursive))


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"hello", id="small"),
        pytest.param(bytes(3 * BLOCK), id="zeros"),
        pytest.param(os.urandom(1024) * (9 * 1024) + b"end", id="above-one-block"),
        pytest.param(os.urandom(BLOCK), id="exactly-one-block"),
        pytest.param(b"a" + bytes(BLOCK) + b"b" + bytes(100), id="zeros-at-both-ends"),
    ],
)
def test_what_is_uploaded_is_read_back(volume: modal.Volume, content: bytes) -> None:
    """A file of any size and content comes back byte by byte, with its size in the listing."""
    upload(volume, file=content)

    assert read(volume, "file") == content
    assert [(e.path, e.size, e.type.name) for e in volume.listdir("/")] == [("file", len(content), "FILE")]


def test_a_download_into_a_file_equals_the_upload(volume: modal.Volume) -> None:
    """Blocks that are downloaded at the same time end up where they belong."""
    content = os.urandom(4096) * 5_000
    upload(volume, file=content)

    target = io.BytesIO()
    assert volume.read_file_into_fileobj("file", target) == len(content)
    assert target.getvalue() == content


def test_directories_are_listed_one_level_or_all(volume: modal.Volume) -> None:
    """A listing shows one level, a recursive one everything below, a file's shows the file."""
    upload(volume, top=b"1", a__one=b"2", a__b__two=b"3")

    assert paths(volume, recursive=False) == ["a", "top"]
    assert paths(volume) == ["a", "a/b", "a/b/two", "a/one", "top"]
    assert paths(volume, "/a", recursive=False) == ["a/b", "a/one"]
    assert paths(volume, "a/b/two") == ["a/b/two"]
    with pytest.raises(NotFoundError):
        paths(volume, "missing")


def test_a_directory_is_uploaded_with_all_in_it(volume: modal.Volume, tmp_path: Path) -> None:
    """put_directory keeps the tree below it."""
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "file").write_text("content")
    (tmp_path / "top").write_text("top")
    with volume.batch_upload() as batch:
        batch.put_directory(tmp_path, "/copy")

    assert paths(volume) == ["copy", "copy/deep", "copy/deep/er", "copy/deep/er/file", "copy/top"]
    assert read(volume, "copy/deep/er/file") == b"content"


def test_an_upload_replaces_only_if_told_to(volume: modal.Volume) -> None:
    """A path that exists is FileExistsError without force, and then nothing of the batch is stored."""
    upload(volume, file=b"old")
    with pytest.raises(FileExistsError):
        upload(volume, file=b"new", other=b"new")
    assert paths(volume) == ["file"] and read(volume, "file") == b"old"
    upload(volume, force=True, file=b"new", other=b"new")
    assert read(volume, "file") == read(volume, "other") == b"new"


def test_a_directory_is_never_replaced_by_a_file(volume: modal.Volume) -> None:
    """Even force does not let a file take a directory's place."""
    upload(volume, a__file=b"1")
    with pytest.raises(FileExistsError):
        upload(volume, force=True, a=b"2")
    assert paths(volume) == ["a", "a/file"]


def test_files_are_removed(volume: modal.Volume) -> None:
    """A file goes alone; a directory only recursively; what is missing is FileNotFoundError."""
    upload(volume, a__one=b"1", a__two=b"2", top=b"3")
    volume.remove_file("top")
    with pytest.raises(Exception, match="directory"):
        volume.remove_file("a")
    assert paths(volume) == ["a", "a/one", "a/two"]
    volume.remove_file("a", recursive=True)
    assert paths(volume) == []
    with pytest.raises(FileNotFoundError):
        volume.remove_file("a")
    with pytest.raises(FileNotFoundError):
        read(volume, "top")


def test_files_are_copied_as_cp_does(volume: modal.Volume) -> None:
    """A copy goes to a new name or into a directory, and does not change with its source."""
    upload(volume, one=b"1", two=b"2", a__file=b"3")
    volume.copy_files(["one"], "three")
    volume.copy_files(["one", "two"], "a")
    upload(volume, force=True, one=b"changed")

    assert read(volume, "three") == b"1"
    assert paths(volume, "a") == ["a/file", "a/one", "a/two"]
    assert read(volume, "a/one") == b"1"
    with pytest.raises(NotFoundError):
        volume.copy_files(["missing"], "four")


def test_a_directory_is_copied_recursively(client: modal.Client, name: str) -> None:
    """Version 2 volumes copy a directory with all in it."""
    with modal.Volume.ephemeral(version=2, client=client) as volume:
        upload(volume, a__b__file=b"1")
        volume.copy_files(["a"], "c", recursive=True)
        assert paths(volume) == ["a", "a/b", "a/b/file", "c", "c/b", "c/b/file"]


def test_paths_stay_inside_of_the_volume(volume: modal.Volume) -> None:
    """A path that climbs out is refused, and reads nothing of the machine's."""
    with pytest.raises(Exception, match=r"\.\.|not found|No such"):
        read(volume, "../../../../../../etc/hostname")


def test_the_version_is_kept(client: modal.Client, name: str) -> None:
    """A volume keeps the version that it was created with, and says so to who expects another."""
    modal.Volume.objects.create(name, version=2, client=client)
    try:
        assert modal.Volume.from_name(name, version=2, client=client).hydrate(client).info().name == name
        with pytest.raises(Exception, match="version"):
            modal.Volume.from_name(name, version=1, client=client).hydrate(client)
    finally:
        modal.Volume.objects.delete(name, client=client)


def test_creating_renaming_deleting_and_listing(client: modal.Client, name: str) -> None:
    """A renamed volume is found by its new name alone, with its files; a deleted one not at all."""
    modal.Volume.objects.create(name, client=client)
    with pytest.raises(AlreadyExistsError):
        modal.Volume.objects.create(name, client=client)
    upload(modal.Volume.from_name(name, client=client).hydrate(client), file=b"1")
    modal.Volume.rename(name, f"{name}-new", client=client)

    assert read(modal.Volume.from_name(f"{name}-new", client=client), "file") == b"1"
    listed = [v.name for v in modal.Volume.objects.list(client=client)]
    assert f"{name}-new" in listed and name not in listed
    with pytest.raises(NotFoundError):
        modal.Volume.from_name(name, client=client).listdir("/")
    modal.Volume.objects.delete(f"{name}-new", client=client)
    with pytest.raises(NotFoundError):
        modal.Volume.from_name(f"{name}-new", client=client).listdir("/")


def test_commit_and_reload_need_a_container(volume: modal.Volume) -> None:
    """Outside of a container that mounts the volume both are a RuntimeError."""
    with pytest.raises(RuntimeError, match="mount"):
        volume.reload()
    with pytest.raises(RuntimeError, match="mount"):
        volume.commit()
