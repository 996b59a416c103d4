"""Explanations of why Airflow's API server refused a task's start or its token, or did not answer.

Does no I/O, and recognises the errors of Airflow's client by their shape alone. A refused token has expired, is not
valid yet, or the settings of the two sides differ. Airflow 3.0 to 3.2 give the reason after "Invalid auth token: ". 3.3
gives none, so the reason is derived from the times in the token and the API server's clock, which is in the `Date`
header of the response. Nothing of a token is returned except these times.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from modalflow.protocol.messages import State
from modalflow.reasons import Cause
from modalflow.support.described import describe
from modalflow.worker.zygote.protocol import Outcome

_UNAUTHORIZED, _FORBIDDEN, _PROXY_LOGIN = 401, 403, 407
_NOT_FOUND, _CONFLICT, _GONE = 404, 409, 410
_SERVER_ERROR = 500

#: Airflow's default of [api_auth] jwt_leeway, in seconds: a smaller difference of clocks causes no refusal.
_LEEWAY = 10.0
#: Seconds by which clocks must differ before the reason mentions it.
_NOTABLE_SKEW = 2.0
#: Characters of a response that a reason repeats.
_LONGEST_ANSWER = 200

#: The beginnings of all refusals that are Airflow's own (api_fastapi/execution_api/deps.py and security.py).
_INVALID = "Invalid auth token"
_OF_AIRFLOW = (_INVALID, "Invalid token scope", "Token type", "Token subject")
_MISSING = "Missing auth token"

#: Words in the reasons of PyJWT and Airflow → the setting in which the two sides differ.
_SETTINGS = (
    ("signature verification", "[api_auth] jwt_secret (or jwt_private_key_path)"),
    ("audience", "[execution_api] jwt_audience"),
    ('"aud"', "[execution_api] jwt_audience"),
    ("issuer", "[api_auth] jwt_issuer"),
    ('"iss"', "[api_auth] jwt_issuer"),
    ("alg", "[api_auth] jwt_algorithm"),
    ("kid", "[api_auth] jwt_private_key_path, jwt_kid or trusted_jwks_url"),
    ("scope", "the version of Airflow"),
    ("token type", "the version of Airflow"),
)

#: The explanation of a refusal after the start.
_AFTER_START = (
    ". It had let the task start, so its own settings have changed since then, or there are several API servers whose "
    "settings differ"
)


def refusal_of(error: BaseException, token: str, url: str, *, started: bool = False) -> Outcome | None:
    """Return the outcome if Airflow's API refused a request for a reason that can be explained; otherwise None.

    The outcome's reason is what Airflow answered; the container's main process completes the sentence. ``started`` says
    that the API server had let the task start. From then on the task uses another token, which the API server made.
    """
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    detail = getattr(error, "detail", None)
    if isinstance(detail, dict) and isinstance(detail.get("detail"), dict):
        # The clients of Airflow 3.0 and 3.1 wrap it once more.
        detail = detail["detail"]
    if isinstance(status, int):
        date = str(getattr(response, "headers", {}).get("date") or "")
        refused = token_refusal(status, _answer(error, detail), "" if started else token, date)
        if refused is not None and started and refused.cause is not Cause.PROXY_REFUSED:
            return Outcome(State.FAILED, reason=f"{url}: {refused.detail}{_AFTER_START}", cause=Cause.TOKEN_REFUSED)
        if refused is not None:
            return Outcome(State.FAILED, reason=f"{url}: {refused.detail}", cause=refused.cause)
    if started:
        return None
    if status == _CONFLICT and isinstance(detail, dict) and detail.get("reason") == "invalid_state":
        state = str(detail.get("previous_state") or "no state")
        why = f"Airflow has it as {state!r}"
        return Outcome(State.SUCCESS, final_state=state, reason=why, cause=Cause.NOT_WANTED)
    if status in (_NOT_FOUND, _GONE) and isinstance(detail, dict) and detail.get("reason") == "not_found":
        why = "it was cleared, or its DAG run deleted"
        return Outcome(State.SUCCESS, reason=why, cause=Cause.NOT_WANTED)
    return None


def unreached(error: BaseException, url: str) -> Outcome | None:
    """Return the outcome if the API did not answer a task's start, or answered with a server error; otherwise None."""
    away = any(
        kind.__name__ == "TransportError" and kind.__module__.startswith("httpx") for kind in type(error).__mro__
    )
    status = getattr(getattr(error, "response", None), "status_code", None)
    if away or (isinstance(status, int) and status >= _SERVER_ERROR):
        return Outcome(State.FAILED, reason=f"{url}: {describe(error)}", cause=Cause.API_UNREACHABLE)
    return None


def _answer(error: BaseException, detail: object) -> str:
    """Return the API server's answer. Airflow's client makes it the error's text; httpx has a text of its own."""
    if isinstance(detail, dict):
        detail = detail.get("detail", detail)
    if isinstance(detail, str):
        return detail
    return "" if type(error).__module__.startswith("httpx") else str(error)


@dataclass(frozen=True)
class TokenRefusal:
    """The reason why a token was refused. ``detail`` completes the sentence of the cause in reasons.EXPLANATIONS."""

    cause: Cause
    detail: str


def token_refusal(status: int, answer: str, token: str, date: str, now: float | None = None) -> TokenRefusal | None:
    """Return why the API server refused a request; None if its status shows that the token is not the problem.

    ``answer`` is the server's text, ``date`` the `Date` header of the response, ``now`` this machine's clock.
    """
    if status not in (_UNAUTHORIZED, _FORBIDDEN, _PROXY_LOGIN):
        return None
    answered = f"it answered {status} ({_short(answer)})" if answer.strip() else f"it answered {status}"
    if answer.startswith(_MISSING):
        return TokenRefusal(Cause.PROXY_REFUSED, f"{answered}, so the Authorization header was lost on the way")
    if not answer.startswith(_OF_AIRFLOW):
        return TokenRefusal(Cause.PROXY_REFUSED, answered)
    reason = answer.removeprefix(_INVALID).lower()
    times = _times_of(token)
    server_time = _server_time(date, time.time() if now is None else now)
    if "expired" in reason or (not reason and server_time > times.get("exp", server_time)):
        return TokenRefusal(Cause.TOKEN_EXPIRED, _expired(times, server_time))
    ahead = max(times.get("iat", server_time), times.get("nbf", server_time)) - server_time
    if "not yet valid" in reason or (not reason and ahead > _LEEWAY):
        return TokenRefusal(Cause.TOKEN_EARLY, f"it was issued {max(ahead, 0):.0f} s ahead of the API server's clock")
    differs = next((setting for words, setting in _SETTINGS if words in (reason or answer).lower()), "")
    answered += f", so the scheduler and the API server differ in {differs}" if differs else ""
    if ahead > _NOTABLE_SKEW:
        answered += f"; the token was also issued {ahead:.0f} s ahead of the API server's clock"
    return TokenRefusal(Cause.TOKEN_REFUSED, answered)


def _expired(times: Mapping[str, float], server_time: float) -> str:
    if "exp" not in times:
        return "it answered that the token has expired"
    valid = f", {times['exp'] - times['iat']:.0f} s after it was issued" if "iat" in times else ""
    return f"it expired {max(server_time - times['exp'], 0):.0f} s ago{valid}"


def _server_time(date: str, otherwise: float) -> float:
    try:
        return parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError):
        return otherwise


def _times_of(token: str) -> dict[str, float]:
    """Return the times in a token, those of them that can be read."""
    try:
        payload = token.split(".")[1]
        claims: Any = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        named = {name: claims.get(name) for name in ("exp", "iat", "nbf")}
    except (AttributeError, IndexError, ValueError, RecursionError):
        return {}
    # A bool is an int in Python, and JSON allows larger numbers than a clock shows.
    return {name: float(at) for name, at in named.items() if type(at) in (int, float) and abs(at) < 1e15}


def _short(answer: str) -> str:
    answer = " ".join(answer.split())
    return answer if len(answer) <= _LONGEST_ANSWER else f"{answer[:_LONGEST_ANSWER]}…"
