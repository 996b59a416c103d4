"""Deploying the apps next door, as a user's ``modal deploy`` would."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import modal
from modal_proto import api_pb2

from tests.sdk import rpc
from tests.support import in_gvisor

#: Seconds for a call; in gVisor, a cold container takes several times as long, and some calls need four of them.
PATIENCE = 180.0 if in_gvisor() else 60.0

APPS = Path(__file__).parent / "apps"


def load(name: str) -> ModuleType:
    """Import an app afresh, as a top-level module: that is what it is in a container."""
    spec = importlib.util.spec_from_file_location(name, APPS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


class Deployed:
    """An app that was deployed under a name, and its functions as anybody finds them."""

    def __init__(self, module: str, name: str, client: modal.Client) -> None:
        self.name, self.client = name, client
        self._module = module
        self.deploy()

    def deploy(self) -> None:
        app: modal.App = load(self._module).app
        app.deploy(name=self.name, client=self.client)

    def function(self, tag: str) -> modal.Function[..., Any, Any]:
        return modal.Function.from_name(self.name, tag, client=self.client)

    def call(self, tag: str, *args: Any, timeout: float = PATIENCE) -> Any:
        """Spawn the function and wait for its result."""
        return self.function(tag).spawn(*args).get(timeout=timeout)

    def stop(self) -> None:
        stop_app(self.name, self.client)


def stop_app(name: str, client: modal.Client) -> None:
    """What App.stop does, which modal 1.6 has first."""
    app_id = modal.App.lookup(name, client=client).app_id or ""
    rpc(client, "AppStop", api_pb2.AppStopRequest(app_id=app_id, source=api_pb2.APP_STOP_SOURCE_PYTHON_CLIENT))
