"""Containers on this machine's kernel: a fork of the template, or a new interpreter.

Owns the choice between the two; ``exec_runtime`` carries it out.
"""

from __future__ import annotations

from modalflow.emulator.processes import exec_runtime
from modalflow.emulator.processes.container_spec import ContainerSpec


class Direct:
    """A way to run a container without anything in between."""

    keeps_rights = False
    descriptors: tuple[int, ...] = ()

    def __init__(self, preloaded: exec_runtime.Preloaded | None) -> None:
        """Without ``preloaded``, every container is a new interpreter."""
        self._preloaded = preloaded

    def run(self, spec: ContainerSpec) -> None:
        exec_runtime.limit(spec.limits)
        if spec.fresh or spec.program or self._preloaded is None or self._preloaded.unfit(spec):
            exec_runtime.execute(spec)
        else:
            exec_runtime.run(spec, self._preloaded)
