"""A pytest plugin: the fixture ``local_modal``, a LocalModal for the tests that ask for it.

Not loaded automatically. Write ``pytest_plugins = ["modalflow.emulator.pytest"]`` in a conftest.py, or pass
``-p modalflow.emulator.pytest``. An entry point would load it into every pytest run of an environment that has
modalflow, Airflow's among them, and most of those have nothing to do with Modal.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, cast

import pytest

from modalflow.emulator.local import LocalModal

if TYPE_CHECKING:
    _Scope = Literal["session", "package", "module", "class", "function"]

_INI = "local_modal_scope"
_SCOPES = ("function", "class", "module", "package", "session")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that sets how long one control plane lives."""
    parser.addini(
        _INI,
        "How long one local control plane lives: function (the default), class, module, package or session.",
        default="function",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Refuse an unknown scope before the collection."""
    scope = str(config.getini(_INI))
    if scope not in _SCOPES:
        raise pytest.UsageError(f"{_INI} is {scope!r}; expected one of {', '.join(_SCOPES)}")


def _scope(fixture_name: str, config: pytest.Config) -> _Scope:
    return cast("_Scope", config.getini(_INI))


@pytest.fixture(scope="session")
def local_modal_options() -> dict[str, Any]:
    """Return the options for the control plane of ``local_modal``: override this fixture with your own.

    Keywords of LocalModal, such as ``{"max_containers": 4}``; see ``modalflow local start --help``.
    """
    return {}


@pytest.fixture(scope=_scope)
def local_modal(local_modal_options: dict[str, Any]) -> Iterator[LocalModal]:
    """Provide a local control plane that Modal's SDK talks to during the test; no other server can be reached.

    Each test gets a new, empty one, unless you set ``local_modal_scope`` in pytest's configuration.
    """
    with LocalModal(**local_modal_options) as running:
        yield running
