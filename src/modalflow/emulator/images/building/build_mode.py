"""Whether a control plane runs the commands of images, and what to do about those that it does not run.

Owns the decision and its reasons. Builds that run commands need isolation by root, for overlays over all of the root.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from modalflow.emulator.images.building.logged_program import Programs
from modalflow.emulator.processes.container_spec import Isolation
from modalflow.emulator.processes.template import room_of

LIST_FLAG = "--list-image-commands"


@dataclass(frozen=True)
class Execution:
    """How the steps of images are executed."""

    runs_commands: bool
    refusal: str = ""
    """The advice in the error for a command that is not executed; empty: the command is listed in the log."""

    @property
    def identity(self) -> list[str]:
        """What distinguishes images of this kind from others of the same definition."""
        return ["commands", sys.prefix] if self.runs_commands else ["errors"] if self.refusal else []


class BuildMode:
    """The decision, made once containers have their isolation."""

    def __init__(self, programs: Programs, *, list_commands: bool) -> None:
        self._programs, self._list_commands = programs, list_commands
        self._execution: Execution | None = None

    async def execution(self) -> Execution:
        if self._execution is None:
            self._execution = await self._decided()
        return self._execution

    async def _decided(self) -> Execution:
        if self._list_commands:
            return Execution(runs_commands=False)
        isolation = await self._programs.isolation()
        if room_of(isolation) is not Isolation.ROOT:
            return Execution(
                False,
                f"With isolation {isolation.value!r}, images get packages from pip and files, and no other command "
                f"runs. Start the control plane as root with --isolation root or gvisor, or add {LIST_FLAG} "
                "(LocalModal: list_image_commands=True) to list such commands in the log without running them.",
            )
        if not await self._programs.overlays():
            return Execution(
                False,
                "The state folder is on a file system that cannot hold the layers of images. Name a folder on another "
                f"one with --state-dir, or add {LIST_FLAG} (LocalModal: list_image_commands=True) to list such "
                "commands in the log without running them.",
            )
        return Execution(True)
