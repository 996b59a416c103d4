"""Modal's current rates, from Modal if the SDK can read them. Blocks."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import modal
from modal import exception

from modalflow.cost.rates import DATED, Rates
from modalflow.protocol.plain_data import plain_data_only
from modalflow.support import bounded
from modalflow.support.described import words_of

#: Time limit for the answer, in seconds.
PATIENCE = 30.0


def live_rates(client: modal.Client | None) -> tuple[Rates, str]:
    """Return Modal's current rates. If they are unavailable, return the dated table and the reason."""
    try:
        workspace: Any = modal.Workspace.from_context(client=client)
        answer = bounded.within(PATIENCE, lambda: _plainly(workspace))
        return Rates.from_answer(answer, f"Modal's rates of {datetime.now(UTC):%Y-%m-%d}"), ""
    except AttributeError:
        return DATED, f"modal {modal.__version__} cannot read them; 1.5.4 and newer can"
    except (exception.Error, NotImplementedError, TimeoutError, ValueError) as error:
        return DATED, f"Modal did not report its own: {words_of(error)}"


def _plainly(workspace: Any) -> dict[str, object]:
    with plain_data_only():
        return dict(workspace.billing.rates())
