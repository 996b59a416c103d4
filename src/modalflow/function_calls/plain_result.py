"""The check of a Function's result before it is an XCom: JSON types only, of a limited size. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

from modalflow.errors import FunctionCallError

#: The advice for a result other than plain data.
EXPECTED = (
    "Return plain data from the Function: str, int, float, bool, None, and lists and dicts of them, for example with "
    "`value.tolist()` or `str(value)`. For large data, write a file to a Volume or a bucket, and return its path. If "
    "you do not need the result, set do_xcom_push=False."
)
#: Bytes of a result as JSON, by default. An XCom is a value in Airflow's database.
MAX_RESULT_BYTES = 1 << 20


def plain(value: Any, most_bytes: int) -> Any:
    """Return a result as JSON types, with lists for tuples. Raises FunctionCallError with the place of another type."""
    try:
        problem = next(_problems(value, "the result"), None)
        if problem is not None:
            raise FunctionCallError(f"The call returned, but {problem}. {EXPECTED}")
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
    except RecursionError:
        raise FunctionCallError(f"The call returned, but the result is nested too deeply. {EXPECTED}") from None
    size = len(text.encode("utf-8", "replace"))
    if size > most_bytes:
        raise FunctionCallError(
            f"The call returned, but the result has {size:,} bytes as JSON, more than max_result_bytes={most_bytes:,}. "
            "Write it to a Volume or a bucket and return its path. If your XCom backend is made for large values, "
            "raise max_result_bytes of the operator."
        )
    return json.loads(text)


def _problems(value: Any, place: str) -> Iterator[str]:
    # Exact types: a subclass can have any methods. The data is from a container.
    kind = type(value)
    if value is None or kind in (str, bool, int):
        return
    if kind is float:
        if not math.isfinite(value):
            yield f"{place} is {value}, which JSON lacks"
    elif kind in (list, tuple):
        for index, each in enumerate(value):
            yield from _problems(each, f"{place}[{index}]")
    elif kind is dict:
        for key, each in value.items():
            if type(key) is not str:
                yield f"a key of {place} is of type {type(key).__name__}"
                return
            yield from _problems(each, f"{place}[{key[:60]!r}]")
    else:
        yield f"{place} is of type {kind.__name__}"
