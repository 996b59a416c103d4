"""The React views as Airflow's UI loads them: one file, built by `make ui`. Cheap to import."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from modalflow.ui.paths import ICON, STATIC

FOLDER = Path(__file__).parent / "static"
FILE = "main.js"

#: The name in the navigation and of the tabs. The component is found by it: one for all three places.
NAME = "Modal"

#: Place in Airflow's UI → the end of its address.
PLACES = {"nav": "modal", "task_instance": "modal-task", "dag_run": "modal-run"}

#: The icons in the navigation and of the tabs, for Airflow's two themes: an image has no colour of the page around it.
ICONS = {"light": "#16a34a", "dark": "#d4d4d8"}

#: Two layers, in the line style of Airflow's own icons.
_LAYERS = (
    "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 24 24' fill='none' stroke='{}' stroke-width='2' "
    "stroke-linejoin='round'><path d='M12 3 21 8 12 13 3 8Z'/><path d='M3 13 12 18 21 13'/></svg>"
)


def icon(theme: str) -> bytes:
    """Return the SVG image for a theme of ``ICONS``."""
    return _LAYERS.format(ICONS[theme]).encode()


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
    return [
        {
            "name": NAME,
            "bundle_url": f"{root}{STATIC}/{FILE}?v={version()}",
            "destination": destination,
            "url_route": route,
            # Addresses, because `airflow plugins` prints them.
            "icon": root + ICON.format(theme="light"),
            "icon_dark_mode": root + ICON.format(theme="dark"),
            # From 3.3 on: not below "Plugins".
            **({"nav_top_level": True} if destination == "nav" else {}),
        }
        for destination, route in PLACES.items()
    ]
