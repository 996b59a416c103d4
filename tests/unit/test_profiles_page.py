"""The page about profiles shows what works."""

from __future__ import annotations

import re
from pathlib import Path

import modalflow

PAGE = Path(__file__).parents[2] / "docs" / "profiles.md"


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_the_file_on_the_page_is_a_worker() -> None:
    """It can be pasted, and says of the GPU's profile what the page says."""
    names: dict[str, object] = {}
    exec(blocks()[0], names)
    worker = names["worker"]
    assert isinstance(worker, modalflow.Worker)
    default, gpu = worker.profiles
    assert (default.name, default.memory, gpu.gpu, gpu.concurrency) == ("default", 2048, ["H100", "A100-80GB"], 1)


def test_every_field_is_on_the_page() -> None:
    """Nobody has to read the source to find out what a profile can have."""
    page = PAGE.read_text()
    assert all(f"`{name}`" in page for name in modalflow.Profile.__dataclass_fields__)
