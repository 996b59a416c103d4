"""The interface of the ways to run a container's program.

Owns the interface alone; each way is a module beside this one. Imports only what every new process has, because the
template holds this module for all containers.
"""

from __future__ import annotations

from typing import Protocol

from modalflow.emulator.processes.container_spec import ContainerSpec


class Sandbox(Protocol):
    """A way to run the program of a container, whose second process calls it inside the container's root."""

    @property
    def keeps_rights(self) -> bool:
        """Whether it needs the capabilities that the container must lose, and takes them from the container itself."""

    @property
    def descriptors(self) -> tuple[int, ...]:
        """The file descriptors that it needs in the container's processes, in ascending order."""

    def run(self, spec: ContainerSpec) -> None:
        """Run the container in this process, or replace this process by it."""
