"""Values of variables that a Dockerfile cannot hold, encoded as text that it can hold.

``modal.Image.env`` writes one Dockerfile line for each variable, and such a line cannot contain a line break (moby
issue 19906). A ``modal.Secret`` could contain one. But the Secrets that a task asks for replace those of its Function
(``replace_secret_ids`` in modal/_function_variants.py), and a deployment's variables must not vanish with them.
So the image sets the encoded value, and the container decodes it before anything reads it. Must stay cheap to import:
a container imports this module before its first input.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, MutableMapping

from modalflow.names import PACKED_VARIABLE

#: The beginning of a packed value. If a Secret sets the same variable, its value lacks this and stays unchanged.
_MARK = "modalflow-packed:"


def packed(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables in a form that an image can set."""
    names = [name for name, value in variables.items() if not value.isprintable()]
    if not names:
        return dict(variables)
    return {**variables, **{name: _pack(variables[name]) for name in names}, PACKED_VARIABLE: json.dumps(names)}


def unpack(environ: MutableMapping[str, str]) -> None:
    """Restore the values that the variables of this container had before ``packed``."""
    for name in json.loads(environ.pop(PACKED_VARIABLE, "[]")):
        value = environ.get(name, "")
        if value.startswith(_MARK):
            environ[name] = zlib.decompress(base64.b64decode(value.removeprefix(_MARK))).decode("utf-8")


def _pack(value: str) -> str:
    return _MARK + base64.b64encode(zlib.compress(value.encode("utf-8"), 9)).decode("ascii")
