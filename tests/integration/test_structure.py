"""The import contracts, and that they would notice if the structure rotted."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]

LAYERS = "Imports point one way"
ALONE = "The local control plane knows nothing"
BORDER = "Airflow is imported at its border alone"
NO_DEPLOY = "What a container imports does not import what deploys"

SOURCES = CHECKOUT / "src" / "modalflow"

#: Every module and package but the one that stands alone. Of support it may import some modules.
MODULES = sorted(
    f"modalflow.{path.stem}"
    for path in SOURCES.iterdir()
    if (path.suffix == ".py" or (path / "__init__.py").exists())
    and path.stem not in ("__init__", "emulator", "support")
)
#: Some that could be tempted.
WITHOUT_AIRFLOW = (
    "config/settings.py",
    "control_plane.py",
    "logs/log_volume.py",
    "executor/engine.py",
    "worker/call.py",
    "worker/zygote/server.py",
)

#: One module of each folder that a container imports.
IN_CONTAINERS = ("worker/app.py", "worker/zygote/server.py", "worker/run/supervised.py", "worker/logs/log_files.py")

#: file → a line that must never stand in it, and the contract that says so.
FORBIDDEN = [
    ("executor/__init__.py", "import modalflow.cli", LAYERS),
    ("executor/__init__.py", "import modalflow.worker", LAYERS),
    ("worker/__init__.py", "import modalflow.executor", LAYERS),
    *((file, "import modalflow.worker.deploy.profile", NO_DEPLOY) for file in IN_CONTAINERS),
    ("protocol/messages.py", "import modalflow.logs.log_volume", LAYERS),
    ("control_plane.py", "import modalflow.airflow_compat", LAYERS),
    ("protocol/plain_data.py", "import modalflow.logs.log_volume", LAYERS),
    ("logs/log_volume.py", "import modalflow.airflow_logging", LAYERS),
    *(
        ("emulator/__init__.py", f"import {module}", ALONE)
        for module in ("airflow", "modal", "modalflow.support.text", *MODULES)
    ),
    *((file, "import airflow", BORDER) for file in WITHOUT_AIRFLOW),
    ("demo/__init__.py", "import modalflow.executor", "The demo drives"),
]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package and its configuration that a test may spoil."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(CHECKOUT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(CHECKOUT / "pyproject.toml", folder)
    return folder


def lint(folder: Path) -> tuple[int, str]:
    """Run import-linter on a tree; its exit code and what it printed."""
    # Isolated, and with the tree first: else the package under test would be the installed one.
    code = (
        "import sys; sys.path.insert(0, 'src'); sys.argv = ['lint-imports', '--no-cache'];"
        " from importlinter.cli import lint_imports_command; lint_imports_command()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_the_tree_keeps_its_contracts(copy: Path) -> None:
    """Imports point one way today."""
    code, output = lint(copy)
    assert code == 0, output


@pytest.fixture(scope="module")
def complaints(copy: Path) -> dict[str, str]:
    """What each contract complains of when all of the forbidden lines are there: contract → its chapter."""
    before: dict[Path, str] = {}
    try:
        for file, line, _ in FORBIDDEN:
            path = copy / "src" / "modalflow" / file
            before.setdefault(path, path.read_text())
            path.write_text(f"{path.read_text()}\n{line}\n")
        code, output = lint(copy)
    finally:
        for path, text in before.items():
            path.write_text(text)
    assert code != 0
    _, _, broken = output.partition("Broken contracts\n")
    _, *chapters = re.split(r"^(.+)\n-+\n", broken, flags=re.MULTILINE)
    return dict(zip(chapters[::2], chapters[1::2], strict=True))


@pytest.mark.parametrize(("file", "line", "contract"), FORBIDDEN)
def test_a_forbidden_import_breaks_a_contract(complaints: dict[str, str], file: str, line: str, contract: str) -> None:
    """Each rule is alive: an import against it breaks its contract and is named."""
    module = "modalflow." + file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    (chapter,) = (text for title, text in complaints.items() if contract in title)
    assert f"{module} -> {line.removeprefix('import ')} (l." in chapter, chapter


def test_a_module_without_a_place_breaks_the_layers(copy: Path) -> None:
    """Whoever adds a module at the top has to say where it belongs."""
    stray = copy / "src" / "modalflow" / "stray.py"
    try:
        stray.touch()
        code, output = lint(copy)
    finally:
        stray.unlink()
    assert code != 0
    assert "modalflow.stray" in output
