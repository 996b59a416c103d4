"""The records of Modal Queues: items, and the latest deliveries.

Owns their form. `Queues` decides when an item comes and goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from modalflow.emulator.queues.partition import QueueItem
from modalflow.emulator.state.journal import Journal, Table


class QueueRecords:
    """The records of all items, and of the deliveries that a repeated call gets again."""

    def __init__(self, journal: Journal) -> None:
        self._items: Table[tuple[bytes, bytes, float]] = journal.table("queue_items", list)
        self._deliveries: Table[tuple[list[bytes], float]] = journal.table("queue_deliveries", list)

    def items(self) -> dict[str, list[tuple[bytes, QueueItem, float]]]:
        """Return (partition, item, when the partition expires) of each queue id, in the items' order."""
        found: dict[str, list[tuple[bytes, QueueItem, float]]] = {}
        for owner, number, (partition, value, expires_at) in self._items.load():
            found.setdefault(owner, []).append((partition, QueueItem(int(number), value), expires_at))
        for items in found.values():
            items.sort(key=lambda item: item[1].number)
        return found

    def put(self, owner: str, partition: bytes, items: Iterable[QueueItem], expires_at: float) -> None:
        for item in items:
            self._items.put(owner, str(item.number), (partition, item.value, expires_at))

    def gone(self, owner: str, items: Iterable[QueueItem]) -> None:
        for item in items:
            self._items.discard(owner, str(item.number))

    def forget(self, owner: str) -> None:
        self._items.discard_all(owner)

    def deliveries(self) -> Iterator[tuple[str, tuple[list[bytes], float]]]:
        """Yield (idempotency key, (values, when)), the oldest first."""
        for _, key, (values, when) in self._deliveries.load():
            yield key, (values, when)

    def delivered(self, key: str, values: list[bytes], when: float) -> None:
        self._deliveries.put("", key, (values, when))

    def delivery_forgotten(self, key: str) -> None:
        self._deliveries.discard("", key)
