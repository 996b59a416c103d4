"""The examples for Modal users run on the local control plane, and say what they would say on Modal."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples" / "modal"

SAYS = {
    "map_squares": ["1000 squares, the last one is 998001, their sum is 332833500"],
    "class_with_state": [
        "Loaded en",
        "Hello, Ada! (call 1 of this container)",
        "Hello, Grace! (call 2 of this container)",
        "Loaded es",
        "Hola, Santiago! (call 1 of this container)",
    ],
    "shared_volume": [
        "Written: 0.txt 1.txt 2.txt 3.txt",
        *(f"written by {n}" for n in range(4)),
        "On the Volume: parts/0.txt parts/1.txt parts/2.txt parts/3.txt",
    ],
    "pipeline": ["11 words extracted", "9 different ones; 'the' occurs 3 times"],
}

#: What `modal run` says itself, around what the app says.
FRAME = re.compile(r"✓|[├└]── ")


def test_every_example_is_run() -> None:
    """No example is without its test."""
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(SAYS)


@pytest.mark.parametrize("example", SAYS)
def test_an_example_says_what_a_user_expects(example: str) -> None:
    """`modalflow local run -- modal run` ends well, and prints the app's lines, each once, between those of the CLI."""
    command = [sys.executable, "-m", "modalflow.cli", "local", "run", "--", sys.executable, "-m", "modal", "run"]
    done = subprocess.run(
        [*command, str(EXAMPLES / f"{example}.py")],
        capture_output=True,
        text=True,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200"},
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.rstrip() for line in done.stdout.splitlines() if line.strip()]
    assert lines[0].startswith("✓ Initialized.")
    assert lines[-1].startswith("✓ App completed.")
    # What containers print comes by the log's stream, so that only the lines as such are certain.
    assert sorted(line for line in lines if not FRAME.match(line)) == sorted(SAYS[example])
