"""Installations of Debian packages that an image has already: apt would install nothing.

Owns the recognition of such steps, as pip.py does for Python's packages: a machine without a network has programs too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from modalflow.emulator.images.building.layered_tree import LayeredTree
from modalflow.emulator.images.recipe import Recipe, Step

STATUS = "/var/lib/dpkg/status"

_OPTION = r"(?:-y|-q|-qq|-yq|-yqq|--yes|--assume-yes|--no-install-recommends)"
_UPDATE = re.compile(rf"RUN apt(?:-get)?(?: {_OPTION})* update(?: {_OPTION})*")
_INSTALL = re.compile(rf"RUN apt(?:-get)?(?: {_OPTION})* install(?P<words>(?: (?:{_OPTION}|[a-z0-9][a-z0-9+.-]+))+)")

_PACKAGE = re.compile(r"^Package: (\S+)$", re.MULTILINE)
_IS_INSTALLED = re.compile(r"^Status: \S+ ok installed$", re.MULTILINE)


def without_installed(recipe: Recipe, tree: LayeredTree) -> Recipe:
    """Return the recipe without the installations of packages that are in the tree.

    If none is left, lists of packages are not updated either.
    """
    installs = {at: match for at, step in enumerate(recipe.steps) if (match := _INSTALL.fullmatch(step.text))}
    if not installs:
        return recipe
    known = _installed(tree)
    unneeded = {at for at, match in installs.items() if _names(match["words"]) <= known}
    if unneeded == set(installs):
        unneeded |= {at for at, step in enumerate(recipe.steps) if _UPDATE.fullmatch(step.text)}
    steps = tuple(_unneeded(step) if at in unneeded else step for at, step in enumerate(recipe.steps))
    dropped = {name for at in unneeded for name in recipe.steps[at].missing}
    missing = tuple(name for name in recipe.settings.missing if name not in dropped)
    return Recipe(replace(recipe.settings, missing=missing), steps)


def _unneeded(step: Step) -> Step:
    return Step(step.text, note="not needed: the packages are installed already")


def _names(words: str) -> set[str]:
    return {word for word in words.split() if not word.startswith("-")}


def _installed(tree: LayeredTree) -> set[str]:
    file = tree.on_host(STATUS)
    return set() if file is None else set(_packages(file.read_text(errors="replace")))


def _packages(status: str) -> Iterator[str]:
    for paragraph in status.split("\n\n"):
        match = _PACKAGE.search(paragraph)
        if match is not None and _IS_INSTALLED.search(paragraph) is not None:
            yield match[1]
