"""The React views as Airflow's UI loads them: one file, built by `make ui`. Cheap to import."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from modalflow.ui.paths import STATIC

FOLDER = Path(__file__).parent / "static"
FILE = "main.umd.cjs"
ICON = "icon.svg"
ICON_DARK = "icon-dark.svg"

#: The name in the navigation and of the tabs. The component is found by it: one for all three places.
NAME = "Modal"

#: Place in Airflow's UI → the end of its address.
PLACES = {"nav": "modal", "task_instance": "modal-task", "dag_run": "modal-run"}


@cache
def version() -> str:
    """Return a digest of the file; empty if it is not built."""
    try:
        return hashlib.sha256((FOLDER / FILE).read_bytes()).hexdigest()[:12]
    except OSError:
        return ""


def react_apps(base_url: str) -> list[dict[str, Any]]:
    """Return the entries of Airflow's plugin interface, from ``[api] base_url``; none if the views are not built.

    The addresses have the path of the URL: Airflow 3.1 and 3.2 import a relative one from another folder than 3.3.
    """
    if not version():
        return []
    root = urlsplit(base_url).path.rstrip("/")
    icons = {
        name: f"{root}{STATIC}/{file}"
        for name, file in (("icon", ICON), ("icon_dark_mode", ICON_DARK))
        if (FOLDER / file).is_file()
    }
    return [
        {
            "name": NAME,
            "bundle_url": f"{root}{STATIC}/{FILE}?v={version()}",
            "destination": destination,
            "url_route": route,
            **icons,
            # From 3.3 on: not below "Plugins".
            **({"nav_top_level": True} if destination == "nav" else {}),
        }
        for destination, route in PLACES.items()
    ]
