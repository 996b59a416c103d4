"""Links are followed as the kernel follows them, and what cannot be followed from outside says why."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from grpclib import GRPCError, Status
from hypothesis import example, given
from hypothesis import strategies as st

from modalflow.emulator.volumes.tree import Node, NodeKind, Tree, parent
from modalflow.emulator.volumes.views.links import resolve


def made(**places: str) -> Tree:
    """A tree of files; ``->`` before a text makes it a link's target. Names are written with ``__`` for ``/``."""
    tree = Tree()
    for name, text in places.items():
        tree.put(name.replace("__", "/"), node(text))
    return tree


def node(text: str) -> Node:
    if text.startswith("->"):
        return Node(NodeKind.LINK, 0o777, 0, target=text[2:])
    return Node(NodeKind.FILE, 0o644, 0, size=len(text))


RUNS = made(
    runs__42__metrics="two",
    runs__latest="->42",
    runs__m="->42/metrics",
    runs__absolute="->/v/runs/42",
    runs__loop="->loop",
    runs__dangling="->nothing",
    runs__out="->../../elsewhere",
    runs__42__up="->..",
    top="->runs/latest/up/latest",
)


@pytest.mark.parametrize(
    "path",
    [
        "runs/42/metrics",
        "runs/m",
        "runs/latest/metrics",
        "runs/latest/up/latest/metrics",
        "top/metrics",
        "top/up/42/metrics",
    ],
)
def test_a_file_is_read_through_links_at_every_name(path: str) -> None:
    """A linked directory is as good as the directory, also one that a link leads to by way of others."""
    assert RUNS.file(path).size == 3


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        (
            "runs/absolute/metrics",
            Status.NOT_FOUND,
            "the link 'runs/absolute' points at '/v/runs/42', so only a con",
        ),
        ("runs/absolute", Status.NOT_FOUND, "No such file or directory: 'runs/absolute': the link"),
        ("runs/loop", Status.INVALID_ARGUMENT, "Too many levels of symbolic links: 'runs/loop'"),
        ("runs/loop/x", Status.INVALID_ARGUMENT, "Too many levels of symbolic links: 'runs/loop/x'"),
        ("runs/dangling", Status.NOT_FOUND, "'runs/dangling' points at 'nothing', and 'runs/nothing' does not exist"),
        ("runs/out", Status.NOT_FOUND, "'runs/out' points at '../../elsewhere', outside of the Volume"),
        ("runs/m/x", Status.NOT_FOUND, "No such file or directory: 'runs/m/x'"),
        ("runs/latest", Status.INVALID_ARGUMENT, "'runs/latest' is a directory; expected a file"),
        ("runs/latest/nothing", Status.NOT_FOUND, "No such file or directory: 'runs/latest/nothing'"),
    ],
)
def test_what_cannot_be_read_says_why(path: str, status: Status, words: str) -> None:
    """The message names the link and where it points."""
    with pytest.raises(GRPCError) as refused:
        RUNS.file(path)
    assert refused.value.status is status
    assert words in str(refused.value.message)


def test_a_listing_goes_through_a_link_to_a_directory() -> None:
    """As ls does it: the entries stand below the path that was asked for; a link to anything else is shown itself."""
    assert [path for path, _ in RUNS.listed("runs/latest", False)] == ["runs/latest/metrics", "runs/latest/up"]
    assert [path for path, _ in RUNS.listed("top", True)] == ["top/metrics", "top/up"]
    for link in ("runs/m", "runs/absolute", "runs/loop", "runs/dangling", "runs/out"):
        assert [(path, at.kind) for path, at in RUNS.listed(link, False)] == [(link, NodeKind.LINK)]
    with pytest.raises(GRPCError):
        RUNS.listed("runs/dangling/x", False)


def test_a_recursive_listing_does_not_follow_what_it_finds() -> None:
    """A circle of directories has an end."""
    assert [path for path, _ in RUNS.listed("runs/42", True)] == ["runs/42/metrics", "runs/42/up"]
    tree = made(d__f="x", d__to_root="->..")
    assert [path for path, _ in tree.listed("d/to_root", True)] == [
        "d/to_root/d",
        "d/to_root/d/f",
        "d/to_root/d/to_root",
    ]


def test_removing_a_link_leaves_what_it_points_at() -> None:
    """A link goes, recursively too; what is named through one goes where that leads."""
    tree = made(d__a="x", d__b="y", link="->d", dangling="->nothing")
    tree.remove("link/a", recursive=False)
    assert tree.under("") == ["d", "d/b", "dangling", "link"]
    tree.remove("link", recursive=True)
    tree.remove("dangling", recursive=False)
    assert tree.under("") == ["d", "d/b"]


def test_a_file_is_put_where_a_link_leads() -> None:
    """What is uploaded below a linked directory is in that; a link at the very place is replaced."""
    tree = made(d__a="x", link="->d", file="->d/a")
    assert tree.place("link/new/file") == "d/new/file"
    assert tree.place("file") == "file"
    with pytest.raises(GRPCError, match="points at"):
        made(link="->nothing").place("link/new")


@pytest.mark.parametrize(
    ("sources", "target", "recursive", "expected"),
    [
        (["m"], "copy", False, {"copy": NodeKind.FILE}),
        (["m"], "copy", True, {"copy": NodeKind.LINK}),
        (["d/f"], "to_d", False, {"d/f": NodeKind.FILE}),
        (["f"], "to_d", False, {"d/f": NodeKind.FILE}),
        (["to_d/f"], "m", False, {"f": NodeKind.FILE}),
        (["m"], "to_d", False, {"d/m": NodeKind.FILE}),
        (["to_d"], "new", True, {"new": NodeKind.LINK}),
    ],
)
def test_a_copy_treats_links_as_cp_does(
    sources: list[str], target: str, recursive: bool, expected: dict[str, NodeKind]
) -> None:
    """A source is followed unless the copy is recursive, a target always."""
    tree = made(d__f="inner", f="outer", m="->f", to_d="->d")
    assert {path: at.kind for path, at in tree.copies(sources, target, recursive, False).items()} == expected


NAMES = st.sampled_from(["a", "b", "c"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
TARGETS = st.one_of(
    st.lists(st.sampled_from(["a", "b", "c", "..", "."]), min_size=1, max_size=4).map("/".join), st.just("/a")
)
PLACES = st.dictionaries(PATHS, st.one_of(st.none(), st.just("text"), TARGETS.map("->{}".format)), max_size=8)


@contextmanager
def on_disk(places: dict[str, str | None]) -> Iterator[tuple[Path, Tree]]:
    """The same entries in a directory and in a tree."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "volume")
        root.mkdir()
        tree = Tree()
        for path, text in sorted(places.items()):
            if any((above := tree.get(p)) is not None and not above.is_directory for p in _above(path)):
                continue
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            if text is None:
                (root / path).mkdir(exist_ok=True)
                tree.put(path, Node(NodeKind.DIRECTORY, 0o755, 0))
            elif text.startswith("->"):
                (root / path).symlink_to(text[2:])
                tree.put(path, node(text))
            else:
                (root / path).write_text(path)
                tree.put(path, node(text))
        yield root, tree


def _above(path: str) -> Iterator[str]:
    while path := parent(path):
        yield path


def _kernel(root: Path, path: str, *, last: bool) -> str | int:
    """Where the kernel finds what stands at a path, or its error."""
    try:
        status = (root / path).stat(follow_symlinks=last)
    except OSError as error:
        return error.errno or 0
    for found in [root, *root.rglob("*")]:
        at = found.lstat()
        if (at.st_dev, at.st_ino) == (status.st_dev, status.st_ino):
            relative = str(found.relative_to(root))
            return "" if relative == "." else relative
    return errno.ENOENT  # Out of the volume, which means nothing outside of a container.


@given(PLACES, PATHS, st.booleans())
@example({"a": "->b/.", "b": "text"}, "a", True)
@example({"a": "->b/.", "b": None}, "a", True)
def test_links_lead_where_the_kernel_finds_them(places: dict[str, str | None], path: str, last: bool) -> None:
    """Whatever links there are: the place is the kernel's, and where that has an error so has the volume."""
    with on_disk(places) as (root, tree):
        expected = _kernel(root, path, last=last)
        try:
            found: str | int = resolve(tree.get, path, last=last)
        except GRPCError as error:
            found = errno.ELOOP if error.status is Status.INVALID_ARGUMENT else errno.ENOENT
        assert found == (errno.ENOENT if expected == errno.ENOTDIR else expected)


@given(PLACES, PATHS)
@example({"c/c": "->.."}, "c/c/c")
@example({"a": None, "b": "text", "c": "->b/.."}, "c/a")
def test_listings_and_removals_are_those_of_the_kernel(places: dict[str, str | None], path: str) -> None:
    """A listing through links has the names that the directory has; a removal leaves what it leaves on disk."""
    with on_disk(places) as (root, tree):
        if (root / path).is_dir() and isinstance(_kernel(root, path, last=True), str):
            assert sorted(found.name for found in (root / path).iterdir()) == [
                p[len(path) + 1 :] for p, _ in tree.listed(path, False)
            ]
        if not isinstance(_kernel(root, path, last=False), str):
            with pytest.raises(GRPCError):
                tree.remove(path, recursive=True)
            return
        if (root / path).is_dir() and not (root / path).is_symlink():
            shutil.rmtree((root / path).resolve())  # The path may lead through a link in the directory itself.
        else:
            (root / path).unlink()
        tree.remove(path, recursive=True)
        assert tree.under("") == sorted(str(left.relative_to(root)) for left in root.rglob("*"))
