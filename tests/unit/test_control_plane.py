"""What is said of a Modal environment: one, and the one that the server means."""

from __future__ import annotations

import pytest
from modal import exception

from modalflow.control_plane import in_environment


@pytest.mark.parametrize(
    ("environment", "error", "phrase"),
    [
        ("staging", "Volume 'x' not found in environment 'staging'", ""),
        (None, "Volume 'x' not found in environment 'main'", ""),
        ("", "Volume 'x' not found in Environment 'main'.", ""),
        ("staging", "No such Volume", " in Modal environment 'staging'"),
        (None, "No such Volume", " in the workspace's default environment"),
        ("", "", " in the workspace's default environment"),
    ],
)
def test_a_sentence_names_one_environment(environment: str | None, error: str, phrase: str) -> None:
    """Modal's own words name the environment that it resolved; ours is said only if they do not."""
    assert in_environment(environment, exception.NotFoundError(error)) == phrase
