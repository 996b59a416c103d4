"""Versions on a Volume, and as folders again."""

from __future__ import annotations

import shutil
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from modalflow.bundles.manifest import Manifest
from modalflow.bundles.prune import RetentionPolicy, prune
from modalflow.bundles.scan import Folder, FolderChangedError
from modalflow.bundles.shipping import ship, with_manifest
from modalflow.bundles.store import GRACE, Store, UnknownVersionError
from modalflow.bundles.trees import Trees, update_tree
from modalflow.errors import BundleError
from tests.unit.bundles.memory import MemoryFiles
from tests.unit.bundles.test_scan import write

B = "dags"


@pytest.fixture
def files() -> MemoryFiles:
    return MemoryFiles()


@pytest.fixture
def store(files: MemoryFiles) -> Store:
    return Store(files, "modalflow-dags")


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def as_folder(store: Store, version: str, root: Path, bundle: str = B) -> dict[str, str]:
    with Trees(root).use(bundle, version, lambda: store.manifest(bundle, version), store.content) as folder:
        return contents(folder)


def test_only_what_changed_is_uploaded(store: Store, files: MemoryFiles, tmp_path: Path) -> None:
    """An edit of one file among many costs that file, a manifest and the pointer."""
    folder = Folder(write(tmp_path / "dags", {f"{number}.py": str(number) for number in range(100)}))
    first = ship(store, B, folder)
    assert (first.uploaded, len(first.changes.added)) == (190, 100)
    files.written.clear()
    write(tmp_path / "dags", {"7.py": "seven"})
    (tmp_path / "dags/8.py").unlink()
    second = ship(store, B, folder)
    assert (second.changes.changed, second.changes.removed, second.uploaded) == (("7.py",), ("8.py",), 5)
    assert [path.rpartition("/")[0].split("/")[1] for path in files.written] == ["blobs", "bundles", "bundles"]
    assert ship(store, B, folder).uploaded == 0


@pytest.mark.parametrize("name", ["b" * 250, "ж" * 100, "任务" * 125, "team/dags", "..", "a.b", "a%2Eb", "%" * 86])
def test_bundles_of_any_name_are_kept_apart_and_found_again(store: Store, tmp_path: Path, name: str) -> None:
    """Airflow takes names of 250 characters: quoted, they are longer than a file's, and prune must still know them."""
    folder = Folder(write(tmp_path / "dags", {"a.py": "a"}))
    for bundle in (name, f"{name}2"):
        shipped = ship(store, bundle, folder)
    assert store.bundles() == sorted([name, f"{name}2"])
    assert as_folder(store, shipped.manifest.version, tmp_path / "trees", name) == {"a.py": "a"}
    assert not prune(store, RetentionPolicy(newest=0, days=0)).versions


def test_a_version_is_visible_once_it_is_complete(store: Store, files: MemoryFiles, tmp_path: Path) -> None:
    """Contents come first, then the manifest, then the pointer: who sees one has all before it."""
    ship(store, B, Folder(write(tmp_path / "dags", {"a.py": "a", "b.py": "b"})))
    kinds = ["manifest" if "/versions/" in path else path.split("/")[1] for path in files.written]
    assert kinds == ["blobs", "blobs", "manifest", "bundles"] and files.written[-1].endswith("/current")


def test_what_changes_while_it_is_shipped_is_shipped_as_it_became(store: Store, tmp_path: Path) -> None:
    """No version ever mixes a listing with contents of later."""
    folder = Folder(write(tmp_path / "dags", {"a.py": "one"}))
    edits = iter(["two", "three"])

    def read(path: str, sha256: str) -> bytes:
        if (edit := next(edits, "")) != "":
            write(tmp_path / "dags", {"a.py": edit})
        return folder.read(path, sha256)

    manifest, _ = with_manifest(folder, lambda manifest: store.ship(B, manifest, read))
    assert as_folder(store, manifest.version, tmp_path / "trees") == {"a.py": "three"}


def test_what_never_stops_changing_is_an_error_and_leaves_the_old_version(store: Store, tmp_path: Path) -> None:
    """Readers go on with what they have."""
    folder = Folder(write(tmp_path / "dags", {"a.py": "one"}))
    first = ship(store, B, folder)

    def read(path: str, sha256: str) -> bytes:
        raise FolderChangedError("a.py changed while it was read")

    write(tmp_path / "dags", {"a.py": "two"})
    with pytest.raises(FolderChangedError):
        with_manifest(folder, lambda manifest: store.ship(B, manifest, read))
    current = store.current(B)
    assert current is not None and current.version == first.manifest.version


def test_what_is_missing_or_damaged_is_said(store: Store, files: MemoryFiles, tmp_path: Path) -> None:
    """An error names the Volume and the version, and what to do; nothing half made is left to be found."""
    manifest = ship(store, B, Folder(write(tmp_path / "dags", {"a.py": "a", "b.py": "b"}))).manifest
    with pytest.raises(UnknownVersionError, match=r"modalflow-dags has no version 0{64}.*latest version"):
        store.manifest(B, "0" * 64)
    with pytest.raises(UnknownVersionError, match="not a version of DAG bundle"):
        store.manifest(B, "3f1c9e2")
    blob = next(path for path in files.files if path.endswith(manifest.files["b.py"].sha256))
    files.put({blob: b"something else"})
    with pytest.raises(BundleError, match=r"damaged.*modalflow sync"):
        as_folder(store, manifest.version, tmp_path / "trees")
    files.remove(blob)
    with pytest.raises(BundleError, match="lacks"):
        as_folder(store, manifest.version, tmp_path / "trees")
    assert contents(tmp_path / "trees") == {}


def test_a_folder_is_made_once_and_what_is_known_is_not_fetched(store: Store, tmp_path: Path) -> None:
    """A new version costs a warm container the files that are new; many at once share the work."""
    folder = Folder(write(tmp_path / "dags", {"a.py": "a", "b.py": "b"}))
    one = ship(store, B, folder).manifest
    two = ship(store, B, Folder(write(tmp_path / "dags", {"b.py": "bb"}))).manifest
    trees, fetched = Trees(tmp_path / "trees"), list[str]()

    def use(manifest: Manifest) -> dict[str, str]:
        def content(file: object) -> bytes:
            fetched.append(manifest.version)
            return store.content(file)  # type: ignore[arg-type]

        with trees.use(B, manifest.version, lambda: manifest, content) as path:
            return contents(path)

    threads = [threading.Thread(target=use, args=(one,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert fetched == [one.version] * 2
    assert use(two) == {"a.py": "a", "b.py": "bb"} and fetched[2:] == [two.version]


def test_a_task_that_scribbles_over_its_files_harms_no_other_version(store: Store, tmp_path: Path) -> None:
    """A copy is believed only where it still is what it was."""
    one = ship(store, B, Folder(write(tmp_path / "dags", {"a.py": "a", "b.py": "b"}))).manifest
    two = ship(store, B, Folder(write(tmp_path / "dags", {"b.py": "bb"}))).manifest
    trees = Trees(tmp_path / "trees")
    with trees.use(B, one.version, lambda: one, store.content) as folder:
        write(folder, {"a.py": "scribbled"})
        with trees.use(B, two.version, lambda: two, store.content) as other:
            assert contents(other) == {"a.py": "a", "b.py": "bb"}


def test_folders_are_bounded_and_those_in_use_stay(store: Store, tmp_path: Path) -> None:
    """The least recently used go first; what a task runs from stays while it runs."""
    trees = Trees(tmp_path / "trees", most=2)
    versions = [ship(store, B, Folder(write(tmp_path / "dags", {"a.py": str(n)}))).manifest for n in range(5)]
    with trees.use(B, versions[0].version, lambda: versions[0], store.content) as held:
        for manifest in versions[1:]:
            with trees.use(B, manifest.version, lambda: manifest, store.content):  # noqa: B023  called at once
                pass
        assert contents(held) == {"a.py": "0"}
    left = {path.name for path in (tmp_path / "trees" / B).iterdir()}
    assert versions[4].version in left and len(left) == 2


def test_a_followed_folder_holds_the_version_and_nothing_else(tmp_path: Path) -> None:
    """Files, folders that became files, and files that became folders; unchanged files are not touched."""
    source = Folder(write(tmp_path / "dags", {"a.py": "a", "x/y.py": "y", "z": "z"}))
    copy = Folder(tmp_path / "copy")
    update_tree(copy, source.manifest(), source.read)
    untouched = (tmp_path / "copy/a.py").stat()
    write(tmp_path / "copy", {"x/__pycache__/y.pyc": ""})
    shutil.rmtree(tmp_path / "dags/x")
    (tmp_path / "dags/z").unlink()
    write(tmp_path / "dags", {"x": "a file now", "z/z.py": "in a folder"})
    update_tree(copy, source.manifest(), source.read)
    assert contents(tmp_path / "copy") == {"a.py": "a", "x": "a file now", "z/z.py": "in a folder"}
    assert (tmp_path / "copy/a.py").stat() == untouched


def test_pruning_keeps_what_is_new_current_or_needed(store: Store, files: MemoryFiles, tmp_path: Path) -> None:
    """And it removes the contents that nobody has any more, but none that may just be on its way into a version."""
    versions = []
    for number in range(6):
        folder = Folder(write(tmp_path / "dags", {"a.py": f"a{number}", "b.py": "always"}))
        versions.append(ship(store, B, folder).manifest.version)
        files.age(10)
    needed = {B: {versions[1]}}
    assert prune(store, RetentionPolicy(newest=2, days=1, needed=needed)).versions == {}
    files.age(GRACE)
    dry = prune(store, RetentionPolicy(newest=2, days=1, needed=needed), dry_run=True)
    assert dry.versions == {B: (versions[3], versions[2], versions[0])} and dry.contents == 3
    files.put({"v1/blobs/00/00": b"on its way"})
    assert prune(store, RetentionPolicy(newest=2, days=1, needed=needed)) == dry
    assert {entry.path.rpartition("/")[2] for entry in store.versions(B)} == {versions[n] for n in (1, 4, 5)}
    assert as_folder(store, versions[1], tmp_path / "trees") == {"a.py": "a1", "b.py": "always"}
    assert "v1/blobs/00/00" in files.files
    with pytest.raises(UnknownVersionError):
        store.manifest(B, versions[0])


class Shipping(RuleBasedStateMachine):
    """Folders change at random, are shipped, fetched and pruned: every version stays what it was."""

    NAMES = st.sampled_from(["a.py", "b.py", "pkg/c.py", "pkg/d/e.txt"])

    @initialize()
    def begin(self) -> None:
        self.root = Path(tempfile.mkdtemp())
        (self.root / "dags").mkdir()
        self.folder = Folder(self.root / "dags")
        self.files = MemoryFiles()
        self.store = Store(self.files, "v")
        self.trees = Trees(self.root / "trees", most=2)
        self.model: dict[str, dict[str, str]] = {}
        self.current = ""

    def teardown(self) -> None:
        shutil.rmtree(self.root)

    @rule(name=NAMES, content=st.sampled_from(["", "1", "2", "3"]))
    def edit(self, name: str, content: str) -> None:
        write(self.root / "dags", {name: content})

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        (self.root / "dags" / name).unlink(missing_ok=True)

    @rule()
    def ship(self) -> None:
        self.current = ship(self.store, B, self.folder).manifest.version
        self.model[self.current] = contents(self.root / "dags")

    @rule(days=st.sampled_from([0.2, 0.6, 1.1, 3.0]))
    def wait(self, days: float) -> None:
        self.files.age(days * 24 * 3600)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), newest=st.integers(0, 2))
    def prune(self, data: st.DataObject, newest: int) -> None:
        needed = data.draw(st.sets(st.sampled_from(sorted(self.model))))
        pruned = prune(self.store, RetentionPolicy(newest=newest, days=1, needed={B: needed}))
        gone = set(pruned.versions.get(B, ()))
        assert not gone & (needed | {self.current})
        for version in gone:
            del self.model[version]

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def fetch(self, data: st.DataObject) -> None:
        version = data.draw(st.sampled_from(sorted(self.model)))
        with self.trees.use(B, version, lambda: self.store.manifest(B, version), self.store.content) as folder:
            assert contents(folder) == self.model[version]

    @invariant()
    def every_version_is_complete(self) -> None:
        for version, expected in self.model.items():
            manifest = self.store.manifest(B, version)
            assert {p: self.store.content(f).decode() for p, f in manifest.files.items()} == expected


Shipping.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
test_shipping = Shipping.TestCase
