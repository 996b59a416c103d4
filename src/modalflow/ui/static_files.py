"""The files of the React views. A browser keeps a file with a hash in its address, and validates the others."""

from __future__ import annotations

import os
import re
from typing import Any
from urllib.parse import parse_qs

from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from modalflow.ui import bundle

_HASHED = re.compile(r"[.-][A-Za-z0-9_-]{8,}\.\w+$")
_SCRIPTS = (".js", ".cjs", ".mjs")
_FOREVER = "public, max-age=31536000, immutable"


class BundleFiles(StaticFiles):
    """Serves ``static/`` of this package; 404 for everything if the views are not built."""

    def __init__(self) -> None:
        super().__init__(directory=bundle.FOLDER, check_dir=False)

    def file_response(
        self, full_path: Any, stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        """Return the file, or 304 if the browser has it."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        name = os.fspath(full_path).replace(os.sep, "/").rpartition("/")[2]
        if name.endswith(_SCRIPTS):
            # A module of another type is refused by browsers, and .cjs has none in most tables of types.
            response.headers["content-type"] = "text/javascript; charset=utf-8"
        response.headers["cache-control"] = _FOREVER if _is_fixed(name, scope) else "no-cache"
        return response


def _is_fixed(name: str, scope: Scope) -> bool:
    """Return whether the content of this address never changes."""
    if name == bundle.FILE:
        # Another API server can have another version, and a browser must not keep it under this address.
        asked = parse_qs(scope["query_string"].decode("latin-1")).get("v", [""])[0]
        return bool(asked) and asked == bundle.version()
    return bool(_HASHED.search(name))
