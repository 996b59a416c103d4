"""Run pip in an image's environment, isolated like a container.

Owns pip's command line, its variables and its view of the host. The packages of the host count as installed, because a
container finds them too. Added or replaced packages go into the environment alone. See
docs/decisions/installing-into-images.md for the reason to use pip for uv's commands as well.
"""

from __future__ import annotations

import itertools
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from modalflow.emulator.images import python_envs
from modalflow.emulator.images.building.logged_program import Programs, run
from modalflow.emulator.images.dockerfile.pip_commands import Install
from modalflow.emulator.processes.container_spec import ContainerSpec, Isolation, Rootfs

#: The host's variables passed to pip: for programs, settings, proxies and certificates.
_PASSED_ON = re.compile(
    r"PATH|HOME|LANG|LC_\w+|TZ|LD_LIBRARY_PATH|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|XDG_CONFIG_\w+"
    r"|NETRC|SSH_AUTH_SOCK|GIT_\w+|(?i:(https?|all|no)_proxy)|PIP_\w+"
)

#: Those with paths outside of the environment, not passed to pip.
_NOT_PASSED_ON = frozenset({"PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER", "PIP_PYTHON", "PIP_SRC", "PIP_LOG"})

#: pip's errors if it cannot reach an index. The last one also appears for a missing package.
_UNREACHABLE = re.compile(
    r"NewConnectionError|Failed to establish a new connection|Temporary failure in name resolution|ConnectTimeoutError"
    r"|ConnectionResetError|ProxyError|Connection refused|No matching distribution found"
)

_SIMPLE = re.compile(r"^(?P<name>[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?)(?:==(?P<version>[\w.!+-]+))?$", re.ASCII)

#: Options with a file of further arguments as their value; such a line in a file; a path in a line.
_FILE_OPTIONS = frozenset({"-r", "--requirement", "-c", "--constraint"})
_CONSTRAINTS = frozenset({"-c", "--constraint"})
_NESTED = re.compile(r"\s*(?P<option>-r|-c|--requirement|--constraint)[ =]\s*(?P<path>[^\s#]+)")
_PATH = re.compile(r"(?<![\w./:-])(file://)?/[^\s;#]+")

#: Options without an effect if all requested packages are installed.
_WITHOUT_CONSEQUENCE = frozenset({"--no-deps"})

OFFLINE = (
    "If this machine cannot reach a package index, name a folder with wheels (find_links=), point pip to a mirror "
    "(PIP_INDEX_URL, pip.conf), or install the package into the Python of `modalflow local`, whose packages "
    "every image has."
)

UNPROTECTED = (
    "   pip runs without isolation, because this machine has no namespaces: a package's build script may write "
    "to every path open to this user\n"
)


class InstallError(RuntimeError):
    """The error of a failed installation. The text contains pip's exit code and its last lines."""


@dataclass(frozen=True)
class Wanted:
    """Requirements and constraints that are names and exact versions only."""

    requirements: tuple[str, ...]
    constraints: tuple[str, ...] = ()

    def satisfied(self) -> dict[str, str] | None:
        """Return the host's versions, requirement → version, if pip would install nothing; None otherwise."""
        there = {requirement: satisfied(requirement) for requirement in self.requirements}
        if not all(there.values()):
            return None
        # A constraint also concerns dependencies, so the host must not contradict any.
        return there if all(satisfied(each) or not _installed(each) for each in self.constraints) else None


def wanted(install: Install, on_host: Callable[[str], Path]) -> Wanted | None:
    """Return the requirements if they are names and exact versions only; None if only pip can read them.

    ``on_host`` returns the host's path of a file of the image.
    """
    found: dict[str, list[str]] = {"-r": [], "-c": []}
    rest = list(install.arguments)
    while rest:
        argument = rest.pop(0)
        if argument in _FILE_OPTIONS and rest:
            try:
                lines = on_host(rest.pop(0)).read_text().splitlines()
            except OSError:
                return None
            found["-c" if argument in _CONSTRAINTS else "-r"] += [
                line.partition(" #")[0].strip() for line in lines if not line.lstrip().startswith("#")
            ]
        elif argument not in _WITHOUT_CONSEQUENCE:
            found["-r"].append(argument)
    requirements, constraints = (tuple(filter(None, lines)) for lines in found.values())
    is_simple = all(_SIMPLE.match(line) for line in (*requirements, *constraints))
    return Wanted(requirements, constraints) if is_simple else None


def is_editable(install: Install) -> bool:
    """Return whether a source folder is installed in place."""
    return any(argument.startswith(("-e", "--editable")) for argument in install.arguments)


def satisfied(requirement: str) -> str:
    """Return the host's version if it satisfies the requirement; empty if not."""
    match = _SIMPLE.match(requirement)
    version = _installed(requirement)
    if match is None or match["version"] is None:
        return version
    # As PEP 440 has it, a version without a local label also means every build of it.
    return version if match["version"] in (version, version.partition("+")[0]) else ""


def _installed(requirement: str) -> str:
    """Return the host's version of a simple requirement's package; empty if it has none."""
    match = _SIMPLE.match(requirement)
    try:
        return metadata.version(match["name"]) if match is not None else ""
    except metadata.PackageNotFoundError:
        return ""


async def install(
    wanted: Install,
    environment: Path,
    *,
    rootfs: Rootfs,
    variables: Mapping[str, str],
    temporary: Path,
    cache: Path,
    programs: Programs,
    log: Callable[[str], None],
    tree: Path | None = None,
    pip_arguments: Sequence[str] | None = None,
) -> None:
    """Install into the environment, or raise InstallError. When cancelled, end pip and all its processes.

    ``rootfs`` shows the temporary folder and the cache. With a ``tree``, the image's own files are there and not at
    their paths: a path in it among the arguments means this file. ``log`` gets each line of pip's output.
    ``pip_arguments`` are those of the environment's Python for pip, if they are not this process's. Without namespaces,
    pip may write to every path open to this user.
    """
    if await programs.isolation() is Isolation.PLAIN:
        log(UNPROTECTED)
    arguments = _arguments(wanted.arguments, tree, temporary)
    given = _variables(environment, variables, temporary, cache)
    cache.mkdir(exist_ok=True)
    program = (str(python_envs.python(environment)), *(pip_arguments or _pip()), "install", *arguments)
    ended = await run(programs, ContainerSpec(rootfs, given, program=program), log)
    if ended.code:
        raise InstallError(_explained(ended.code, ended.last))
    _restore_paths(environment, tree)


def outside_root(workdir: str, *, tree: Path | None, draft: Path, temporary: Path, cache: Path, hidden: Path) -> Rootfs:
    """Return the root of pip for an environment outside of the image's files.

    Inside the ``hidden`` folder, pip and build scripts see only the tree, the cache and the ``draft``, with the
    environment and the temporary folder. Files written to other places vanish when pip ends.
    """
    folder, nothing = temporary / "container", temporary / "nothing"
    for made in (folder, nothing):
        made.mkdir(exist_ok=True)
    cwd = on_host(workdir or "/", tree)
    return Rootfs(
        folder=folder,
        layer=nothing,
        hidden=hidden,
        shown=(draft, cache, *users_own()),
        lent=() if tree is None or tree.is_relative_to(draft) else (tree,),
        cwd=str(cwd if cwd.is_dir() else "/"),
    )


def users_own() -> list[Path]:
    """Return paths of this process's variables that installers need: an agent for SSH, the user's cache of pip.

    From this process's variables, and not from the image's: they are the user's.
    """
    found = [Path(os.environ.get(name, "")) for name in ("SSH_AUTH_SOCK", "PIP_CACHE_DIR")]
    return [path for path in found if path.is_absolute() and path.exists()]


def on_host(path: str, tree: Path | None) -> Path:
    """Return the host's path of a file of the image, for a tree of its own files over the host's root."""
    return Path(_on_host(path, tree))


def _explained(code: int, last: Iterable[str]) -> str:
    output = "".join(last).strip()
    lines = output.splitlines()
    # After the first error come its reasons, for example the packages that contradict each other.
    first = next((number for number, line in enumerate(lines) if line.startswith("ERROR")), len(lines))
    errors = [line for line in lines[first:] if line.strip()]
    hint = f"\n{OFFLINE}" if _UNREACHABLE.search(output) else ""
    return f"pip ended with exit code {code}:\n" + ("\n".join(errors) or output or "it printed nothing") + hint


def _pip() -> list[str]:
    """Return the arguments of the environment's Python for pip."""
    found = python_envs.pip_arguments()
    if not found:
        raise InstallError(
            f"there is no pip to install with: {sys.executable} has neither pip nor ensurepip. "
            "Install one of them (Debian: apt-get install python3-pip) and build again."
        )
    return found


def host_variables() -> dict[str, str]:
    """Return the host's variables for installers: programs, settings, proxies and certificates."""
    return {n: v for n, v in os.environ.items() if _PASSED_ON.fullmatch(n) and n not in _NOT_PASSED_ON}


def _variables(environment: Path, given: Mapping[str, str], temporary: Path, cache: Path) -> dict[str, str]:
    variables = {"PIP_CACHE_DIR": str(cache), **host_variables(), **given}
    return variables | {
        "PATH": os.pathsep.join([str(environment / "bin"), os.environ.get("PATH", os.defpath)]),
        "TMPDIR": str(temporary),
        "PIP_NO_INPUT": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
        "PIP_PROGRESS_BAR": "off",
        "PYTHONUNBUFFERED": "1",
        "PYTHONNOUSERSITE": "1",
    }


def _on_host(argument: str, tree: Path | None) -> str:
    """Return an argument with the image's paths replaced by the host's."""
    option, has_value, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    scheme, separator, path = value.rpartition("file://")
    if tree is None or not path.startswith("/") or not os.path.lexists(tree / path.lstrip("/").partition("[")[0]):
        return argument
    return f"{option}{has_value}{scheme}{separator}{tree / path.lstrip('/')}"


def _arguments(arguments: Sequence[str], tree: Path | None, temporary: Path) -> list[str]:
    """Return the arguments with the image's paths replaced by the host's, also in requirements files."""
    made: list[str] = []
    files = itertools.count()

    def rewritten(path: Path) -> Path:
        lines = []
        for line in path.read_text().splitlines():
            nested = _NESTED.match(line)
            if nested is not None:
                there = Path(_on_host(str(path.parent / nested["path"]), tree))
                lines.append(f"{nested['option']} {rewritten(there)}" if there.is_file() else line)
            else:
                lines.append(_PATH.sub(lambda found: _on_host(found[0], tree), line))
        copy = temporary / f"{next(files)}-{path.name}"
        copy.write_text("\n".join(lines) + "\n")
        return copy

    for argument in arguments:
        path = Path(_on_host(argument, tree))
        is_file = bool(made) and made[-1] in _FILE_OPTIONS and tree is not None and path.is_file()
        made.append(str(rewritten(path)) if is_file else str(_on_host(argument, tree)))
    return made


def _restore_paths(environment: Path, tree: Path | None) -> None:
    """Restore the image's paths in an environment: editable installs record the place of their source."""
    if tree is None:
        return
    for place in python_envs.packages(environment):
        for file in [*place.glob("*.pth"), *place.glob("__editable__*.py")]:
            text = file.read_text()
            if str(tree) in text:
                file.unlink()
                file.write_text(text.replace(str(tree), ""))
