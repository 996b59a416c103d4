"""A version of an app: what one deployment consisted of.

Owns the value and how many versions are kept. How a version is deployed again is Rollbacks' matter.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from modal_proto import api_pb2

from modalflow.emulator import clock

#: The newest versions of an app, which callers can name and roll back to; older ones stay in the history only.
#: Inferred: Modal limits rollbacks by plan, and marks the rest of the history as ``rollback_allowed=False``.
KEPT_VERSIONS = 100


@dataclass(eq=False)
class Version:
    """One deployment of an app. Calls without a version never went to a staged one."""

    number: int
    function_ids: dict[str, str]
    class_ids: dict[str, str]
    tags: dict[str, str] = field(default_factory=dict)
    staged: bool = False
    deployed_at: float = field(default_factory=clock.now)
    client_version: str = ""
    deployment_tag: str = ""
    commit_info: api_pb2.CommitInfo | None = None
    copy_of: int = 0
    """The number of the version that a rollback, rollover or promotion copied; 0 for a new one."""

    def again(self, number: int, client_version: str) -> Version:
        """Return a copy of this version under a later number."""
        return Version(
            number=number,
            function_ids=dict(self.function_ids),
            class_ids=dict(self.class_ids),
            tags=dict(self.tags),
            client_version=client_version,
            deployment_tag=self.deployment_tag,
            commit_info=self.commit_info,
            copy_of=self.number,
        )
