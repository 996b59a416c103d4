"""The names of everything that modalflow owns on Modal, derived from one app name.

Two deployments share a Modal environment by choosing different app names; nothing else needs to differ.
"""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_APP = "modalflow"
DEFAULT_PROFILE = "default"

#: Where a worker finds the logs Volume, and where the DAG bundles that were baked into its image are.
LOGS_MOUNT = "/vol/logs"
BUNDLES_ROOT = "/opt/modalflow/bundles"

#: The file on the logs Volume that tells which worker is deployed.
DEPLOYMENT_FILE = "modalflow-deployment.json"


@dataclass(frozen=True)
class Names:
    """Modal object names for one worker app."""

    app: str = DEFAULT_APP

    @property
    def ledger(self) -> str:
        """The Dict with one entry per work id."""
        return f"{self.app}-ledger"

    @property
    def events(self) -> str:
        """The Modal Queue on which workers tell executors of outcomes, one partition per executor."""
        return f"{self.app}-events"

    @property
    def executors(self) -> str:
        """The Dict in which every executor tells what it has in flight."""
        return f"{self.app}-executors"

    @property
    def logs(self) -> str:
        """The Volume with the logs and the deployment file."""
        return f"{self.app}-logs"

    @staticmethod
    def function(profile: str) -> str:
        """The Function of a profile."""
        return f"run-{profile}"
