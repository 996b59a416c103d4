"""The place of the example DAGs: in the wheel, or in its checkout."""

from __future__ import annotations

from pathlib import Path
from typing import Final

DEMO_DAG: Final = "modalflow_demo"


def example_dags() -> Path:
    """Return the folder of the example DAGs."""
    installed = Path(__file__).parent / "dags"
    checkout = Path(__file__).parents[3] / "examples" / "dags"
    for folder in (installed, checkout):
        if (folder / f"{DEMO_DAG}.py").exists():
            return folder
    raise FileNotFoundError(f"the example DAGs are neither in {installed} nor in {checkout}; reinstall modalflow")
