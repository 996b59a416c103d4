"""The running containers of a control plane, and the last ones that ended.

Owns which ones there are. When one starts and ends is Pools' matter.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from modalflow.emulator.apps.app import App
from modalflow.emulator.containers.container import Container, State

#: Containers that ended and can still be asked about.
REMEMBERED_CONTAINERS = 500


class Containers:
    """The living containers, oldest first, and those that ended lately."""

    def __init__(self) -> None:
        self._living: dict[str, Container] = {}
        self._ended: OrderedDict[str, Container] = OrderedDict()

    def __iter__(self) -> Iterator[Container]:
        """Yield every living container, also while some start and end."""
        return iter(list(self._living.values()))

    def find(self, container_id: str | None) -> Container | None:
        """Return the container of that id, also if it ended lately."""
        return self._living.get(container_id or "") or self._ended.get(container_id or "")

    def add(self, container: Container) -> None:
        self._living[container.container_id] = container

    def end(self, container: Container) -> None:
        """Note that the container ended."""
        self._living.pop(container.container_id, None)
        self._ended[container.container_id] = container
        if len(self._ended) > REMEMBERED_CONTAINERS:
            self._ended.popitem(last=False)

    @property
    def starting(self) -> int:
        """The number of containers that have not asked for an input yet."""
        return sum(container.state is State.STARTING for container in self._living.values())

    def count(self, app: App) -> int:
        """Return how many living containers an app has."""
        return sum(container.function.app is app for container in self._living.values())
