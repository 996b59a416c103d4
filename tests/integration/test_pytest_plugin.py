"""The pytest plugin, in runs of pytest as a user has them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from textwrap import indent

import pytest

SECONDS = 120

#: A user's account that must not be reached: nobody listens there.
ACCOUNT = {"MODAL_SERVER_URL": "http://127.0.0.1:9", "MODAL_TOKEN_ID": "ak-user", "MODAL_TOKEN_SECRET": "as-user"}

TESTS = """
import asyncio, os, subprocess, sys
import modal

app = modal.App("shop")
stock = modal.Dict.from_name("stock", create_if_missing=True)

@app.function(serialized=True)
def sell(item: str) -> int:
    stock[item] -= 1
    return stock[item]

def test_selling(local_modal):
    stock["tea"] = 3
    with app.run():
        assert sell.remote("tea") == 2

def test_each_begins_empty(local_modal):
    assert stock.len() == 0
    assert os.environ["MODAL_SERVER_URL"] == local_modal.url

async def look():
    await stock.put.aio("a", 1)
    return await stock.get.aio("a")

def test_a_loop_and_a_process(local_modal):
    assert asyncio.run(look()) == 1
    code = "import modal; print(modal.Dict.from_name('stock')['a'])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "1\\n"

def test_without():
    assert os.environ["MODAL_SERVER_URL"] == "http://127.0.0.1:9"
"""

CONFTEST = 'pytest_plugins = ["modalflow.emulator.pytest"]\n'


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., str]:
    """Run pytest on these files; what it printed. Its exit code is checked."""

    def run(files: dict[str, str], *options: str, code: int = 0) -> str:
        for name, text in files.items():
            (tmp_path / name).write_text(text)
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("MODAL", "PYTEST"))}
        # Plugins of this project's own tests are not a user's.
        program = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:asyncio", "-q", *options]
        done = subprocess.run(
            program,
            cwd=tmp_path,
            env={**environ, **ACCOUNT, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


def test_each_test_has_a_control_plane_of_its_own(run: Callable[..., str]) -> None:
    """With an app of the module, from a loop and from a process, and in the worker processes of pytest-xdist; without
    the fixture nothing changes."""
    assert "4 passed" in run({"conftest.py": CONFTEST, "test_shop.py": TESTS}, "-n", "2")


SHOP = """
import modal

app = modal.App("shop")
stock = modal.Dict.from_name("stock", create_if_missing=True)

@app.function(serialized=True)
def sell(item: str) -> int:
    stock[item] -= 1
    return stock[item]
"""


def test_the_page_on_testing(run: Callable[..., str]) -> None:
    """Its examples do what they say, as they are written."""
    page = (Path(__file__).parents[2] / "docs" / "testing.md").read_text()
    conftest, test, block = re.findall(r"```python\n(.+?)```", page, re.DOTALL)
    block = f"def test_block():\n{indent(block, '    ')}"
    files = {"conftest.py": conftest, "shop.py": SHOP, "test_shop.py": test, "test_block.py": block}
    assert "2 passed" in run(files)


SHARED = """
import modal, pytest

@pytest.fixture(scope="session")
def local_modal_options():
    return {"max_containers": 1}

@pytest.mark.parametrize("number", range(3))
def test_shared(local_modal, number):
    assert local_modal.options.max_containers == 1
    counted = modal.Dict.from_name("counted", create_if_missing=True)
    counted[number] = True
    assert counted.len() == number + 1

def test_nested(local_modal):
    from modalflow.emulator import LocalModal
    with LocalModal():
        assert modal.Dict.from_name("counted", create_if_missing=True).len() == 0
    assert modal.Dict.from_name("counted").len() == 3
"""


def test_tests_may_share_one(run: Callable[..., str]) -> None:
    """With options of the user's own; and a test of theirs may start another one."""
    ini = "[pytest]\naddopts = -p modalflow.emulator.pytest\nlocal_modal_scope = session\n"
    assert "4 passed" in run({"pytest.ini": ini, "test_shared.py": SHARED})


def test_a_scope_that_is_none_is_said(run: Callable[..., str]) -> None:
    """With the names that there are, and without a traceback."""
    ini = "[pytest]\naddopts = -p modalflow.emulator.pytest\nlocal_modal_scope = forever\n"
    printed = run({"pytest.ini": ini, "test_shared.py": SHARED}, code=4)
    assert "local_modal_scope is 'forever'; expected one of function, class" in printed
    assert not re.search("INTERNALERROR|Traceback", printed)


def test_it_is_loaded_on_request_alone() -> None:
    """Who installs modalflow for Airflow has no plugin of it in other tests."""
    assert [entry for entry in entry_points(group="pytest11") if entry.value.startswith("modalflow")] == []
