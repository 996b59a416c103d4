"""What of a folder is shipped."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modalflow.bundles import scan
from modalflow.bundles.manifest import NOTHING, Changes, Manifest, folder_name
from modalflow.bundles.scan import Folder, FolderChangedError
from modalflow.errors import BundleError


def write(root: Path, files: dict[str, str]) -> Path:
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content)
    return root


def test_equal_folders_are_equal_versions(tmp_path: Path) -> None:
    """The version is made of paths, contents and what can be executed, and of nothing else."""
    files = {"a.py": "1", "sub/b.py": "2"}
    one = Folder(write(tmp_path / "one", files)).manifest()
    other = Folder(write(tmp_path / "other", dict(reversed(files.items())))).manifest()
    assert one.version == other.version and len(one.version) == 64
    (tmp_path / "other/a.py").chmod(0o755)
    assert Folder(tmp_path / "other").manifest().version != one.version
    assert Manifest.read(one.content, one.version) == one


def test_caches_and_what_editors_leave_are_no_part_of_a_version(tmp_path: Path) -> None:
    """Parsing a DAG, or having it open in an editor, makes no new version; `.airflowignore` is a file like others."""
    before = Folder(write(tmp_path, {"a.py": "", ".airflowignore": "x"})).manifest()
    write(tmp_path, {"__pycache__/a.pyc": "", ".git/HEAD": "", "a.pyc": "", ".a.py.swp": "", "a.py~": ""})
    (tmp_path / ".#a.py").symlink_to("me@host.1:2")
    (tmp_path / "empty").mkdir()
    assert Folder(tmp_path).manifest() == before
    assert sorted(before.files) == [".airflowignore", "a.py"]


def test_a_change_is_seen_even_if_neither_size_nor_time_tell(tmp_path: Path) -> None:
    """A file that was read just after it was written is read again."""
    folder = Folder(write(tmp_path, {"a.py": "one"}))
    first = folder.manifest()
    look = (tmp_path / "a.py").stat()
    (tmp_path / "a.py").write_text("two")
    os.utime(tmp_path / "a.py", ns=(look.st_atime_ns, look.st_mtime_ns))
    assert folder.manifest().since(first) == Changes(changed=("a.py",))


def test_what_has_not_changed_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at a folder costs one look per file."""
    folder = Folder(write(tmp_path, {"a.py": "one", "b.py": "two"}))
    for path in tmp_path.iterdir():
        os.utime(path, (1_000, 1_000))
    first = folder.manifest()
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"{path} was read"))
    assert folder.manifest() == first


def test_links_within_the_folder_are_what_they_point_to(tmp_path: Path) -> None:
    """As git-sync and Kubernetes make them: the folder itself a link, and files behind links in it."""
    write(tmp_path / "rev-1", {"real/a.py": "a"})
    (tmp_path / "rev-1/b.py").symlink_to("real/a.py")
    (tmp_path / "rev-1/linked").symlink_to("real")
    (tmp_path / "current").symlink_to("rev-1")
    assert sorted(Folder(tmp_path / "current").manifest().files) == ["b.py", "linked/a.py", "real/a.py"]


def test_what_cannot_be_shipped_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Links out of the folder, links in circles, files and folders that are too big, and folders that are not there."""
    with pytest.raises(BundleError, match="nowhere"):
        Folder(tmp_path / "nowhere").manifest()
    out = write(tmp_path / "out", {"a.py": ""})
    (out / "passwd").symlink_to("/etc/passwd")
    with pytest.raises(BundleError, match=r"passwd is a link to /etc/passwd, outside of"):
        Folder(out).manifest()
    circle = write(tmp_path / "circle", {"sub/a.py": ""})
    (circle / "sub/again").symlink_to("..")
    with pytest.raises(BundleError, match="again is a link to one of its own parent folders"):
        Folder(circle).manifest()
    monkeypatch.setattr(scan, "LARGEST_FILE", 10)
    with pytest.raises(BundleError, match=r"big\.bin has"):
        Folder(write(tmp_path / "big", {"big.bin": "x" * 11})).manifest()
    monkeypatch.setattr(scan, "MOST_FILES", 2)
    with pytest.raises(BundleError, match="more than 2 files"):
        Folder(write(tmp_path / "many", {"1": "", "2": "", "3": ""})).manifest()


def test_a_file_is_read_as_it_was_listed_or_not_at_all(tmp_path: Path) -> None:
    """What changed, or went, between the two is an error of its own."""
    folder = Folder(write(tmp_path, {"a.py": "one", "b.py": "two"}))
    files = folder.manifest().files
    assert folder.read("a.py", files["a.py"].sha256) == b"one"
    (tmp_path / "a.py").write_text("changed")
    (tmp_path / "b.py").unlink()
    for path in files:
        with pytest.raises(FolderChangedError, match=path):
            folder.read(path, files[path].sha256)


@pytest.mark.parametrize("path", ["/etc/x", "../x", "a/../../x", "", "a//b", "./a"])
def test_a_manifest_leads_nowhere_else(path: str) -> None:
    """Whatever the Volume says, a container writes below its own folder only."""
    content = b'{"files":{"%s":["00",0,0]},"format":1}' % path.encode()
    version = __import__("hashlib").sha256(content).hexdigest()
    with pytest.raises(BundleError, match="malformed"):
        Manifest.read(content, version)


def test_a_manifest_that_is_another_or_of_tomorrow_is_refused() -> None:
    """A version is what its name says, in a format that is understood."""
    with pytest.raises(BundleError, match="another content"):
        Manifest.read(NOTHING.content, "0" * 64)
    content = NOTHING.content.replace(b'"format":1', b'"format":2')
    with pytest.raises(BundleError, match=r"format 2.*modalflow deploy"):
        Manifest.read(content, __import__("hashlib").sha256(content).hexdigest())


@pytest.mark.parametrize("name", ["..", ".", "a/b", "/x", "dags folder", "ä"])
def test_the_folder_of_a_bundle_is_one_folder_whatever_its_name(name: str) -> None:
    """Names are Airflow's, paths are ours."""
    assert "/" not in folder_name(name) and not folder_name(name).startswith(".")
