"""Common parts of the answers: freshness, links to Modal's dashboard, and names of users."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from modalflow.names import dashboard_url
from modalflow.ui.answers.freshness import Freshness, Links
from modalflow.ui.sources.cached import Seen
from modalflow.ui.sources.live_state import LiveState

_PAGE = dashboard_url("{id}")


def freshness(now: float, *sources: Seen[Any]) -> Freshness:
    """Return the freshness of an answer: that of the oldest of its sources."""
    read_at = min(seen.read_at for seen in sources)
    return Freshness(
        read_at=read_at,
        age=max(0.0, now - read_at) if read_at else 0.0,
        reading=any(seen.reading for seen in sources),
        problem=_first(seen.problem for seen in sources),
    )


def links(live: LiveState | None) -> Links:
    """Return the links for the ids of an answer. A local control plane has no pages."""
    if live is None or live.local:
        return Links()
    return Links(function_call=_PAGE, container=_PAGE)


def shown_user(user: str, *, cluster: bool) -> str:
    """Return a user's name without the host that follows it if a user of the command line has acted.

    ``cluster`` is whether the viewer may see Airflow's cluster activity, and so the host.
    """
    return user if cluster else user.partition("@")[0]


def _first(texts: Iterable[str]) -> str:
    return next((text for text in texts if text), "")
