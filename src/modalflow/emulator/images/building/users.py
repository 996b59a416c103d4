"""The user of a Dockerfile's USER, by the image's own files of users and groups."""

from __future__ import annotations

from modalflow.emulator.images.building.layered_tree import LayeredTree

#: The columns of a user's own number, and of its group's, in /etc/passwd and /etc/group.
_NUMBER, _GROUP = 2, 3


class UnknownUser(ValueError):
    """The error for a user or group that the image does not have. The text names it."""


def user_of(text: str, tree: LayeredTree) -> tuple[int, int]:
    """Return the numbers of a user and a group, from ``user``, ``user:group`` or numbers; empty is root."""
    user, _, group = text.partition(":")
    row = _row(tree, "/etc/passwd", user) if user else ["root", "x", "0", "0"]
    if row is None and not user.isdecimal():
        raise UnknownUser(f"the image has no user {user!r} in /etc/passwd")
    number = int(user if row is None else row[_NUMBER])
    if not group:
        return number, 0 if row is None else int(row[_GROUP])
    its = _row(tree, "/etc/group", group)
    if its is None and not group.isdecimal():
        raise UnknownUser(f"the image has no group {group!r} in /etc/group")
    return number, int(group if its is None else its[_NUMBER])


def _row(tree: LayeredTree, path: str, name: str) -> list[str] | None:
    file = tree.on_host(path)
    lines = [] if file is None else file.read_text(errors="replace").splitlines()
    column = _NUMBER if name.isdecimal() else 0
    rows = (line.split(":") for line in lines)
    return next((row for row in rows if len(row) > column and row[column] == name), None)
