"""Variables whose values a Dockerfile cannot hold, packed into text that it can.

``modal.Image.env`` writes a line of a Dockerfile for each variable, and a line cannot have a line break in it (moby
issue 19906). A ``modal.Secret`` could, but the Secrets that a task asks for replace those of its Function
(``replace_secret_ids`` in modal/_function_variants.py), and a variable of the deployment must not vanish with them. So
such a value is a variable of the image all the same, packed, and unpacked before anything in the container reads it.
Must stay cheap to import: a container does so before its first input.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, MutableMapping

from modalflow.names import PACKED_VARIABLE

#: What a packed value begins with. A value of the same name that a Secret sets does not, and stays as it is.
_MARK = "modalflow-packed:"


def packed(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables as an image can have them."""
    names = [name for name, value in variables.items() if not value.isprintable()]
    if not names:
        return dict(variables)
    return {**variables, **{name: _pack(variables[name]) for name in names}, PACKED_VARIABLE: json.dumps(names)}


def unpack(environ: MutableMapping[str, str]) -> None:
    """Give the variables of this container the values that they had before ``packed``."""
    for name in json.loads(environ.pop(PACKED_VARIABLE, "[]")):
        value = environ.get(name, "")
        if value.startswith(_MARK):
            environ[name] = zlib.decompress(base64.b64decode(value.removeprefix(_MARK))).decode("utf-8")


def _pack(value: str) -> str:
    return _MARK + base64.b64encode(zlib.compress(value.encode("utf-8"), 9)).decode("ascii")
