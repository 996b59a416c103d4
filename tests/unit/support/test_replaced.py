"""The names of Airflow and of the SDK that modalflow replaces: each exists, and no other is assigned to."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import modal
import pytest

from modalflow.airflow_compat import replaced as of_airflow
from modalflow.airflow_compat.versions import AIRFLOW_VERSION
from modalflow.support import replaced_in_sdk as of_sdk
from modalflow.support.replaced import ReplacedName, ReplacedNameError, replace

SOURCES = Path(__file__).parents[3] / "src" / "modalflow"
#: The one place that assigns.
MECHANISM = SOURCES / "support" / "replaced.py"
PAGE = Path(__file__).parents[3] / "docs" / "upstream-notes.md"

#: Packages whose names may only be replaced through a row.
FOREIGN = frozenset({"airflow", "modal", "modal_proto", "structlog", "pydantic", "sqlalchemy", "httpx", "grpclib"})

#: Calls that return a module or class of another project without an import statement.
LOOK_UPS = frozenset({"import_module", "_loaded", "_sdk", "_client_class", "owner", "owner_if_loaded"})

#: Assignments to objects that modalflow has made itself with another project's class: file → attributes.
OWN_OBJECTS = {
    # A token generator that Airflow makes for the caller.
    "airflow_compat/tokens.py": {"valid_for"},
    # An event loop of the SDK that a forked child inherited: asyncio's class, and the child never uses it.
    "support/forks.py": {"_closed"},
}


def names() -> list[ReplacedName]:
    return [*of_airflow.ROWS, *of_sdk.ROWS]


@pytest.mark.matrix
@pytest.mark.parametrize("row", of_airflow.ROWS, ids=lambda row: str(row.name))
def test_each_name_exists_in_this_airflow(row: ReplacedName) -> None:
    """A name that a new version of Airflow renames or removes is noticed here, and not by a user's task."""
    if not row.applies_to(AIRFLOW_VERSION):
        pytest.skip(f"not replaced in Airflow {AIRFLOW_VERSION}")
    assert row.exists()


@pytest.mark.parametrize("row", of_sdk.ROWS, ids=lambda row: str(row.name))
def test_each_name_exists_in_this_sdk(row: ReplacedName) -> None:
    """A name that a new version of the SDK renames or removes is noticed here, and not by a scheduler."""
    if not row.applies_to(modal.__version__):
        pytest.skip(f"not replaced in modal {modal.__version__}")
    assert row.exists()


@pytest.mark.parametrize("row", names(), ids=lambda row: str(row.name))
def test_each_row_is_used_where_it_says(row: ReplacedName) -> None:
    """The module of the row uses it, so that the page names the right place and has no leftover rows."""
    [constant] = [name for module in (of_airflow, of_sdk) for name, value in vars(module).items() if value is row]
    for module in row.by.split(", "):
        path = SOURCES / f"{module.replace('.', '/')}.py"
        nodes = list(ast.walk(ast.parse(path.read_text())))
        used = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        used |= {node.id for node in nodes if isinstance(node, ast.Name)}
        assert constant in used, path


def test_nothing_else_of_another_project_is_assigned_to() -> None:
    """Whoever replaces a name of Airflow or of the SDK adds a row to the tables: they are complete."""
    assert [found for path in sorted(SOURCES.rglob("*.py")) if path != MECHANISM for found in assignments(path)] == []


@pytest.mark.parametrize(
    "code",
    [
        "import airflow.settings\nairflow.settings.X = 1",
        "from airflow.sdk import log\nlog.init_log_file = None",
        "from modal.client import _Client as C\nC._closed = 1",
        "import modal._serialization as s\nt: Any = s.Unpickler\nt.find_class = None",
        "m = import_module('airflow.x').DagBag\nm.__init__ = None",
        "import modal\nsetattr(modal, 'x', 1)",
        "import airflow.sdk\nwait = getattr(airflow.sdk.Client, 'wait', None)\nwait.min = 1",
        "from airflow import a\ndef f():\n    from airflow.b import C\n    C.d, x = 1, 2",
    ],
)
def test_an_assignment_that_bypasses_the_tables_is_found(code: str, tmp_path: Path) -> None:
    """In whichever way the module or class was imported."""
    (file := tmp_path / "module.py").write_text(code)
    assert len(list(assignments(file))) == 1


def test_a_missing_name_is_an_error_that_says_why_it_is_needed() -> None:
    """The message names the row, the module that replaces it, and the reason."""
    row = ReplacedName("json:JSONEncoder.gone", "it is needed", "worker.call")
    with pytest.raises(ReplacedNameError, match=r"json:JSONEncoder\.gone does not exist .* worker\.call: it is needed"):
        replace(row, None)


def test_the_page_is_up_to_date() -> None:
    """docs/upstream-notes.md has the table as the code has it."""
    assert of_airflow.table() in PAGE.read_text(), "run `make docs`"


def assignments(path: Path) -> Iterator[str]:
    """Yield each assignment to an attribute of another project's module, class or object in a file."""
    tree = ast.parse(path.read_text())
    foreign = foreign_names(tree)
    allowed = OWN_OBJECTS.get(str(path.relative_to(SOURCES)) if path.is_relative_to(SOURCES) else "", set())
    for node in ast.walk(tree):
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = [part for target in node.targets for part in parts(target)]
        elif isinstance(node, ast.AnnAssign | ast.AugAssign):
            targets = [node.target]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "setattr":
            targets = [ast.Attribute(node.args[0], "", ast.Store(), lineno=node.lineno)]
        for target in targets:
            if isinstance(target, ast.Attribute) and target.attr not in allowed and is_foreign(target.value, foreign):
                yield f"{path.name}:{target.lineno}: {ast.unparse(target)}"


def parts(target: ast.expr) -> list[ast.expr]:
    return target.elts if isinstance(target, ast.Tuple | ast.List) else [target]


def foreign_names(tree: ast.Module) -> set[str]:
    """Return the names that a file binds to modules, classes or attributes of another project."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {each.asname or root(each.name) for each in node.names if root(each.name) in FOREIGN}
        elif isinstance(node, ast.ImportFrom) and root(node.module or "") in FOREIGN:
            found |= {each.asname or each.name for each in node.names}
    grown = True
    while grown:
        before = len(found)
        for node in ast.walk(tree):
            if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
                continue
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if is_foreign(node.value, found):
                found |= {target.id for target in targets if isinstance(target, ast.Name)}
        grown = len(found) > before
    return found


def is_foreign(value: ast.expr, foreign: set[str]) -> bool:
    """Return whether an expression is another project's name, an attribute of one, or the result of a look-up."""
    while isinstance(value, ast.Attribute):
        value = value.value
    if isinstance(value, ast.Call):
        called = value.func
        if isinstance(called, ast.Name) and called.id == "getattr":
            return is_foreign(value.args[0], foreign)
        name = called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""
        return name in LOOK_UPS
    return isinstance(value, ast.Name) and value.id in foreign


def root(module: str) -> str:
    return module.partition(".")[0]
