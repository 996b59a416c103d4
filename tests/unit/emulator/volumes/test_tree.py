"""The rules of a volume's tree of paths."""

from __future__ import annotations

import pytest
from grpclib import GRPCError, Status

from modalflow.emulator.volumes.tree import Node, NodeKind, Tree, normalise


def file(size: int = 1) -> Node:
    return Node(NodeKind.FILE, 0o644, 0, size=size)


def tree(*paths: str) -> Tree:
    made = Tree()
    for path in paths:
        made.put(path, file())
    return made


@pytest.mark.parametrize(
    ("given", "expected"),
    [("/", ""), ("", ""), (".", ""), ("/a/b", "a/b"), ("a//b/", "a/b"), ("./a/./b", "a/b")],
)
def test_paths_have_one_form(given: str, expected: str) -> None:
    """However a client writes a path, it is the same one."""
    assert normalise(given) == expected


def test_no_path_leaves_the_volume() -> None:
    """A path with .. is refused wherever the .. is."""
    for path in ("..", "../a", "a/../b", "/a/.."):
        with pytest.raises(GRPCError) as refused:
            normalise(path)
        assert refused.value.status is Status.INVALID_ARGUMENT


def test_parents_come_with_a_file_and_stay_without_it() -> None:
    """Putting a file makes its directories; removing it leaves them."""
    made = tree("a/b/c")
    assert list(made.nodes()) == ["a/b", "a", "a/b/c"]
    made.remove("a/b/c", recursive=False)
    assert made.under("") == ["a", "a/b"]


def test_names_that_only_begin_alike_are_not_below() -> None:
    """a.b and ab are not in the directory a."""
    made = tree("a/x", "a.b/x", "ab")
    assert made.under("a") == ["a/x"]
    made.remove("a", recursive=True)
    assert made.under("") == ["a.b", "a.b/x", "ab"]


@pytest.mark.parametrize(
    ("sources", "target", "into", "expected"),
    [
        (["f"], "g", False, ["g"]),
        (["f"], "d", False, ["d/f"]),
        (["f"], "", False, ["f"]),
        (["f", "d/x"], "e", False, ["e/f", "e/x"]),
        (["d"], "new", False, ["new", "new/x"]),
        (["d"], "e", True, ["e/d", "e/d/x"]),
    ],
)
def test_a_copy_goes_where_cp_puts_it(sources: list[str], target: str, into: bool, expected: list[str]) -> None:
    """To a new name, or into a directory that exists."""
    assert sorted(tree("f", "d/x", "e/y").copies(sources, target, True, into)) == expected


@pytest.mark.parametrize(
    ("sources", "target", "recursive", "into", "status"),
    [
        (["missing"], "g", True, False, Status.NOT_FOUND),
        (["f", "d/x"], "g", True, False, Status.INVALID_ARGUMENT),
        (["f"], "new", True, True, Status.INVALID_ARGUMENT),
        (["f"], "new/g", True, False, Status.NOT_FOUND),
        (["d"], "g", False, False, Status.INVALID_ARGUMENT),
        (["d"], "d", True, False, Status.INVALID_ARGUMENT),
        (["f"], "h/f/g", True, False, Status.NOT_FOUND),
    ],
)
def test_a_copy_that_cp_refuses_is_refused(
    sources: list[str], target: str, recursive: bool, into: bool, status: Status
) -> None:
    """Nothing is copied that is not there, into what is no directory, or into itself."""
    with pytest.raises(GRPCError) as refused:
        tree("f", "d/x").copies(sources, target, recursive, into)
    assert refused.value.status is status


def test_a_file_is_found_through_links() -> None:
    """Relative links are followed inside of the volume; circles and absolute ones end in an error."""
    made = tree("d/file")
    for path, target in {"link": "d/file", "d/up": "../link", "round": "round", "out": "/etc/passwd"}.items():
        made.put(path, Node(NodeKind.LINK, 0o777, 0, target=target))
    assert made.file("link") == made.file("d/up") == made.find("d/file")
    for path in ("round", "out", "d", "missing"):
        with pytest.raises(GRPCError):
            made.file(path)


def test_what_is_displaced_is_returned() -> None:
    """A node that takes a directory's place returns all files that were in it, for their content to be released."""
    made = Tree()
    made.put("a/x", file(1))
    made.put("a/b/y", file(2))
    assert sorted(node.size for node in made.put("a", file(3)) if node.kind is NodeKind.FILE) == [1, 2]
    assert made.under("") == ["a"]
    assert [node.size for node in made.put("a/z", file(4)) if node.kind is NodeKind.FILE] == [3]
