"""The local control plane: Modal's API, served from and run on this machine.

A gRPC server that the unmodified ``modal`` SDK talks to and that runs the unmodified Modal container runtime in child
processes. It knows Modal's protocol and nothing of Airflow or of the rest of modalflow.
"""

from modalflow.emulator.local import LocalModal
from modalflow.emulator.sdk import WrongServerError

__all__ = ["LocalModal", "WrongServerError"]
