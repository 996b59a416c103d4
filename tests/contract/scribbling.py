"""A program: a control plane in the folder that it is given, and a container that writes wherever it likes.

usage: scribbling STATE [ISOLATION FOLDER...]; without folders, the home, the temporary and the current folder
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import modal

from modalflow.emulator.local import LocalModal
from modalflow.emulator.options import Options
from tests.contract.deploying import Deployed
from tests.sdk import client_of


def main() -> None:
    state = Path(sys.argv[1])
    isolation, *folders = sys.argv[2:] or (None, Path.home(), tempfile.gettempdir(), Path.cwd())
    options = Options(state_dir=state, isolation=isolation)
    with LocalModal(options) as control_plane:
        os.environ.update(control_plane.env)
        with client_of(control_plane.url, control_plane.env) as client:
            app = Deployed("hostile_app", "scribbling", client)
            paths = [f"{folder}/scribbled" for folder in folders]
            assert app.call("scribble", paths) == paths
            dict_ = modal.Dict.from_name("large", create_if_missing=True, client=client).hydrate(client)
            dict_["x"] = "x" * 1_000_000
            volume = modal.Volume.from_name("files", create_if_missing=True, client=client).hydrate(client)
            with volume.batch_upload() as batch:
                batch.put_file(__file__, "/file.py")
    print("left:", sorted(path.name for path in Path(tempfile.gettempdir()).iterdir()))
