"""What a profile wants imported once per container, so that no task pays for it.

A convenience, never a reason for a container or a task to fail: what cannot be imported is told in the container's log.
"""

from __future__ import annotations

import json
import logging
from importlib import import_module

from modalflow.support.described import describe

log = logging.getLogger(__name__)


def import_all(listed: str) -> list[str]:
    """Import the modules of a JSON list; return those that are there now."""
    imported = []
    for name in _names(listed):
        try:
            import_module(name)
        except (Exception, SystemExit) as error:
            log.exception("The profile's preload %s cannot be imported: %s", name, describe(error))
        else:
            imported.append(name)
    return imported


def _names(listed: str) -> list[str]:
    try:
        names = json.loads(listed or "[]")
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        log.error("Nothing is preloaded: expected a JSON list of modules, found %r", listed)
        return []
    return names
