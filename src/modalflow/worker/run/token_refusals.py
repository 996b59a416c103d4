"""Why Airflow's API server refused a token: it expired, it is not valid yet, or the settings of both sides differ.

Pure. Airflow 3.0 to 3.2 say the reason after "Invalid auth token: "; 3.3 says nothing more, so the reason comes from
the times in the token and from the API server's clock, which is in the `Date` header of its answer. Of a token it
returns the times alone.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from modalflow.reasons import Cause

_UNAUTHORIZED, _FORBIDDEN, _PROXY_LOGIN = 401, 403, 407

#: Airflow's default of [api_auth] jwt_leeway, in seconds: clocks that differ by less are no reason for a refusal.
_LEEWAY = 10.0
#: Seconds by which clocks differ before that is worth a mention.
_NOTABLE_SKEW = 2.0
#: The longest answer that is repeated.
_LONGEST_ANSWER = 200

#: How Airflow's own refusals begin (api_fastapi/execution_api/deps.py and security.py). All others are not Airflow's.
_INVALID = "Invalid auth token"
_OF_AIRFLOW = (_INVALID, "Invalid token scope", "Token type", "Token subject")
_MISSING = "Missing auth token"

#: What PyJWT and Airflow say → the setting in which the two sides differ.
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


@dataclass(frozen=True)
class TokenRefusal:
    """Why a token was refused. ``said`` completes the sentence that reasons.EXPLANATIONS has for the cause."""

    cause: Cause
    said: str


def token_refusal(status: int, answer: str, token: str, date: str, now: float | None = None) -> TokenRefusal | None:
    """Return why the API server refused a request; None if its status says that the token is not the problem.

    ``answer`` is what it said, ``date`` the `Date` header of the answer, ``now`` this machine's clock.
    """
    if status not in (_UNAUTHORIZED, _FORBIDDEN, _PROXY_LOGIN):
        return None
    said = f"it answered {status} ({_short(answer)})" if answer.strip() else f"it answered {status}"
    if answer.startswith(_MISSING):
        return TokenRefusal(Cause.PROXY_REFUSED, f"{said}, so the Authorization header was lost on the way")
    if not answer.startswith(_OF_AIRFLOW):
        return TokenRefusal(Cause.PROXY_REFUSED, said)
    reason = answer.removeprefix(_INVALID).lower()
    times = _times_of(token)
    there = _clock_of(date, time.time() if now is None else now)
    if "expired" in reason or (not reason and there > times.get("exp", there)):
        return TokenRefusal(Cause.TOKEN_EXPIRED, _expired(times, there))
    ahead = max(times.get("iat", there), times.get("nbf", there)) - there
    if "not yet valid" in reason or (not reason and ahead > _LEEWAY):
        return TokenRefusal(Cause.TOKEN_EARLY, f"it was issued {max(ahead, 0):.0f} s ahead of the API server's clock")
    differs = next((setting for words, setting in _SETTINGS if words in (reason or answer).lower()), "")
    said += f", so the scheduler and the API server differ in {differs}" if differs else ""
    if ahead > _NOTABLE_SKEW:
        said += f"; the token was also issued {ahead:.0f} s ahead of the API server's clock"
    return TokenRefusal(Cause.TOKEN_REFUSED, said)


def _expired(times: Mapping[str, float], there: float) -> str:
    if "exp" not in times:
        return "it answered that the token has expired"
    valid = f", {times['exp'] - times['iat']:.0f} s after it was issued" if "iat" in times else ""
    return f"it expired {max(there - times['exp'], 0):.0f} s ago{valid}"


def _clock_of(date: str, otherwise: float) -> float:
    try:
        return parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError):
        return otherwise


def _times_of(token: str) -> dict[str, float]:
    """The times that a token names, of those that can be read."""
    try:
        payload = token.split(".")[1]
        claims: Any = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        named = {name: claims.get(name) for name in ("exp", "iat", "nbf")}
    except (AttributeError, IndexError, ValueError, RecursionError):
        return {}
    # A bool is an int, and JSON has more numbers than a clock.
    return {name: float(at) for name, at in named.items() if type(at) in (int, float) and abs(at) < 1e15}


def _short(answer: str) -> str:
    answer = " ".join(answer.split())
    return answer if len(answer) <= _LONGEST_ANSWER else f"{answer[:_LONGEST_ANSWER]}…"
