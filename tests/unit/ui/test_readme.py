"""The examples of the API's page are answers that the types accept."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import modalflow.ui
from modalflow.ui.answers.actions import CancelAnswer, Finding, ProfileAnswer
from modalflow.ui.answers.overview import Overview
from modalflow.ui.answers.run import RunAnswer
from modalflow.ui.answers.spend import Spend
from modalflow.ui.answers.task import TaskAnswer
from modalflow.ui.answers.work import COLUMNS, WorkTable

README = (Path(modalflow.ui.__file__).parent / "README.md").read_text()
EXAMPLES = dict(re.findall(r"`GET (/\w+)[^`]*`\n\n```json\n(.*?)\n```", README, re.DOTALL))
ANSWERS: dict[str, type[BaseModel]] = {
    "/overview": Overview,
    "/work": WorkTable,
    "/spend": Spend,
    "/task": TaskAnswer,
    "/run": RunAnswer,
}


def unknown(example: Any, answer: type[BaseModel]) -> list[str]:
    """Return the fields of an example that its type does not have, at its top."""
    return sorted(example.keys() - answer.model_fields.keys() - {"links"})


@pytest.mark.parametrize("path", ANSWERS)
def test_an_example_is_an_answer(path: str) -> None:
    """With no field that has another name by now."""
    example = json.loads(EXAMPLES[path])
    assert unknown(example, ANSWERS[path]) == []
    read = ANSWERS[path].model_validate(example, strict=True)
    written = json.loads(read.model_dump_json(exclude_unset=True))
    written.setdefault("links", example.get("links"))
    assert written == {"links": None} | example


def test_the_other_examples() -> None:
    """Rows, and the answers of actions."""
    table = json.loads(EXAMPLES["/work"])
    assert tuple(table["columns"]) == COLUMNS
    assert all(len(row) == len(COLUMNS) for row in table["rows"])
    others = README.partition("The other answers:")[2]
    cancelled, profile, finding = re.findall(r"^\{.*?\}$", others, re.DOTALL | re.MULTILINE)
    assert CancelAnswer.model_validate_json(cancelled)
    assert ProfileAnswer.model_validate_json(profile)
    assert Finding.model_validate_json(finding)
