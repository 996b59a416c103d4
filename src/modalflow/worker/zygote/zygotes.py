"""The zygotes of a container for Airflow's workloads: one for each set of variables read by Airflow and by the host's
code at their import."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from modalflow.worker import environment
from modalflow.worker.zygote.client import ZygoteClient
from modalflow.worker.zygote.prestart import Prestart

#: The most zygotes that are kept. Each holds Airflow in memory, about 130 MB.
KEPT = 2

_Settings = tuple[tuple[str, str], ...]
_Values = tuple[tuple[str, str | None], ...]


class Zygotes:
    """Starts a zygote when the first workload needs it, and ends the least recently used."""

    def __init__(self, variables: Mapping[str, str], started: Prestart) -> None:
        """``variables`` are the container's, and ``started`` may have the first zygote."""
        self._variables = variables
        self._zygotes: dict[tuple[_Settings, _Values], ZygoteClient] = {}
        """The last is the most recently used."""
        self._read: dict[_Settings, frozenset[str]] = {}
        """More variables, read by the code in a zygote with these settings."""
        if started.zygote is not None:
            zygote = ZygoteClient(started.env, airflow=True, started=started.zygote)
            self._zygotes[environment.read_at_import(started.env), ()] = zygote

    async def zygote_for(self, env: Mapping[str, str]) -> ZygoteClient:
        """Return a zygote for a process with these variables; it has finished its imports.

        Raises ZygoteEndedError if it ends before.
        """
        settings = environment.read_at_import(env)
        while True:
            read = self._read.get(settings, frozenset())
            key = settings, _values(env, read)
            latest = next(reversed(self._zygotes.values()), None)
            zygote = self._zygotes.pop(key, None)
            if zygote is None:
                zygote = ZygoteClient(environment.of_zygote(self._variables, env, read), airflow=True)
            self._zygotes[key] = zygote
            if latest is not None and latest is not zygote:
                await latest.rest()
            await self._close_old()
            more = (await zygote.imported()).variables_read
            if more <= read:
                return zygote
            self._read[settings] = self._read.get(settings, frozenset()) | more
            if self._zygotes.get(key) is zygote:
                del self._zygotes[key]
                self._zygotes[settings, _values(zygote.env, self._read[settings])] = zygote

    async def _close_old(self) -> None:
        for key, zygote in list(self._zygotes.items())[:-1]:
            if len(self._zygotes) <= KEPT:
                return
            if not zygote.is_busy:
                del self._zygotes[key]
                await zygote.close()


def _values(env: Mapping[str, str], names: Iterable[str]) -> _Values:
    return tuple((name, env.get(name)) for name in sorted(names))
