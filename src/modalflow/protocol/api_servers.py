"""What an API server reports about itself beside its Execution API: its Airflow, and its modalflow."""

from __future__ import annotations

from typing import Any

from modalflow.names import VERSION_PATH

#: Seconds for one request: an API server that has just started builds its routes for the first one.
TIMEOUT = 30.0


def about(url: str) -> dict[str, Any]:
    """Return what the API server at this URL of an Execution API reports; ``version`` is empty if it reports nothing.

    ``version`` is that of Airflow, ``modalflow`` that of the imported modalflow (empty for none), and ``installed``
    describes the package of that name.
    """
    version = str(_ask_root(url, "/api/v2/version").get("version") or "")[:40]
    if not version:
        return {"version": ""}
    answer = _ask_root(url, VERSION_PATH)
    return {
        "version": version,
        "modalflow": str(answer.get("modalflow") or "")[:40],
        "installed": answer.get("installed"),
    }


def _ask_root(url: str, path: str) -> dict[str, Any]:
    """Return the answer at a path beside the Execution API; empty if it is not a JSON object."""
    import httpx

    root, execution, _ = url.rpartition("/execution")
    try:
        answer: Any = httpx.get(f"{root}{path}", timeout=TIMEOUT).json() if execution else {}
    except (httpx.HTTPError, ValueError):
        return {}
    return answer if isinstance(answer, dict) else {}
