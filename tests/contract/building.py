"""A program: a control plane in the folder that it is given, an image whose function writes a file, and one that reads.

usage: building STATE ISOLATION FILE
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import modal

from modalflow.emulator.local import LocalModal
from modalflow.emulator.options import Options
from tests.contract.deploying import load
from tests.sdk import client_of


def main() -> None:
    state, isolation, file = sys.argv[1:]
    module = load("image_app")
    image = modal.Image.debian_slim().run_function(module.put, args=(file, "built"))
    app = modal.App(image=image)
    read = app.function(name="read")(module.read)
    with LocalModal(Options(state_dir=Path(state), isolation=isolation)) as control_plane:
        os.environ.update(control_plane.env)
        with client_of(control_plane.url, control_plane.env) as client, app.run(client=client):
            print("read:", read.remote(file))
