"""The form of an answer: JSON, compressed once, never kept by a browser."""

from __future__ import annotations

import gzip

from fastapi import Request
from fastapi.responses import Response
from pydantic import BaseModel

#: Shorter answers are not worth the time.
_LEAST_COMPRESSED = 1024

#: Seconds after which a view asks again while a first read is under way.
_AGAIN = 2


def answered(request: Request, answer: BaseModel | bytes, *, empty: bool = False) -> Response:
    """Return the response. ``empty`` is whether nothing has been read yet: then it says when to ask again."""
    body = answer if isinstance(answer, bytes) else answer.model_dump_json().encode()
    headers = {"cache-control": "no-store", "vary": "accept-encoding, cookie, authorization"}
    if empty:
        headers["retry-after"] = str(_AGAIN)
    if len(body) >= _LEAST_COMPRESSED and "gzip" in request.headers.get("accept-encoding", ""):
        # Here, in a thread, and fast: Airflow's own compression of a large table takes several times as long.
        body = gzip.compress(body, compresslevel=1)
        headers["content-encoding"] = "gzip"
    return Response(body, media_type="application/json", headers=headers)
