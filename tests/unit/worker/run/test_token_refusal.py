"""Why a token was refused: from what each version of Airflow answers, and from the clocks."""

from __future__ import annotations

import asyncio
import base64
import json
from email.utils import formatdate
from typing import Any

import pytest
from airflow.api_fastapi.auth.tokens import JWTGenerator, JWTValidator
from hypothesis import given
from hypothesis import strategies as st

from modalflow.reasons import Cause
from modalflow.worker.run.api_errors import token_refusal

NOW = 1_800_000_000.0
DATE = formatdate(NOW, usegmt=True)
BARE = "Invalid auth token"
SECRET = "s" * 64


def token(**claims: Any) -> str:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"header.{payload}.signature"


VALID = token(iat=NOW - 5, nbf=NOW - 5, exp=NOW + 595)


@pytest.mark.parametrize(
    ("answer", "given", "cause", "said"),
    [
        (BARE, VALID, Cause.TOKEN_REFUSED, "it answered 403 (Invalid auth token)"),
        (BARE, token(iat=NOW - 661, exp=NOW - 61), Cause.TOKEN_EXPIRED, "it expired 61 s ago, 600 s after"),
        (BARE, token(iat=NOW + 90, nbf=NOW + 90, exp=NOW + 690), Cause.TOKEN_EARLY, "90 s ahead of the API server's"),
        (BARE, token(iat=NOW + 5, exp=NOW + 605), Cause.TOKEN_REFUSED, "also issued 5 s ahead"),
        (f"{BARE}: Signature has expired", VALID, Cause.TOKEN_EXPIRED, "it expired 0 s ago"),
        (f"{BARE}: The token is not yet valid (iat)", VALID, Cause.TOKEN_EARLY, "ahead of the API server's clock"),
        (f"{BARE}: Signature verification failed", token(exp=NOW - 9), Cause.TOKEN_REFUSED, "[api_auth] jwt_secret"),
        ("Invalid token scope: new", VALID, Cause.TOKEN_REFUSED, "the version of Airflow"),
        ("Token type 'workload' not allowed for this endpoint.", VALID, Cause.TOKEN_REFUSED, "the version of Airflow"),
        ("Missing auth token", VALID, Cause.PROXY_REFUSED, "the Authorization header was lost"),
        ("<html>Sign in</html>", VALID, Cause.PROXY_REFUSED, "it answered 403 (<html>Sign in</html>)"),
        ("", VALID, Cause.PROXY_REFUSED, "it answered 403"),
    ],
)
def test_each_refusal_has_its_cause(answer: str, given: str, cause: Cause, said: str) -> None:
    """Expired, too early, other settings, and a refusal that is not Airflow's are four things."""
    found = token_refusal(403, answer, given, DATE)
    assert found is not None
    assert found.cause is cause and said in found.detail


def test_the_api_servers_clock_decides() -> None:
    """A container whose own clock is wrong draws no conclusion from it; without the server's there is only its own."""
    found = token_refusal(403, BARE, VALID, DATE, now=NOW + 9_999)
    assert found is not None and found.cause is Cause.TOKEN_REFUSED
    found = token_refusal(403, BARE, VALID, "yesterday", now=NOW + 9_999)
    assert found is not None and found.cause is Cause.TOKEN_EXPIRED


@pytest.mark.parametrize("status", [200, 404, 409, 422, 500])
def test_another_status_is_no_refusal_of_a_token(status: int) -> None:
    """Whatever the body says."""
    assert token_refusal(status, BARE, VALID, DATE) is None


@given(st.text(), st.text(), st.text())
def test_nothing_that_comes_from_outside_raises(answer: str, given: str, date: str) -> None:
    """Neither an answer, a token nor a header is what it should be; no part of the token is shown."""
    assert token_refusal(401, answer, f"a.{given}.b", date, now=NOW) is not None


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), st.lists, max_leaves=4))
def test_times_that_are_none_do_not_raise(value: object) -> None:
    """A token's claims are JSON of any kind."""
    for claims in ({"exp": value, "iat": value}, value):
        payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode()
        assert token_refusal(403, BARE, f"h.{payload}.s", DATE) is not None


@pytest.mark.parametrize(
    ("signed", "checked", "setting"),
    [
        ({"secret_key": "o" * 64}, {}, "[api_auth] jwt_secret"),
        ({"audience": "other"}, {}, "[execution_api] jwt_audience"),
        ({"issuer": "other"}, {"issuer": "us"}, "[api_auth] jwt_issuer"),
        ({"issuer": None}, {"issuer": "us", "required_claims": frozenset({"exp", "iss"})}, "[api_auth] jwt_issuer"),
        ({"algorithm": "HS256"}, {}, "[api_auth] jwt_algorithm"),
    ],
)
def test_what_airflow_says_names_the_setting(signed: Any, checked: Any, setting: str) -> None:
    """With the messages of the JWT library that is installed, as Airflow 3.0 to 3.2 answer them."""
    common = {"secret_key": SECRET, "audience": "urn:airflow", "issuer": None, "algorithm": "HS512"}
    made = JWTGenerator(**{**common, "valid_for": 600.0, "kid": "k", **signed}).generate({"sub": "x"})
    validator = JWTValidator(**{**common, "algorithm": ["HS512"], "leeway": 10, **checked})
    with pytest.raises(Exception) as refused:
        asyncio.run(validator.avalidated_claims(made, {}))
    found = token_refusal(403, f"{BARE}: {refused.value}", made, "")
    assert found is not None
    assert found.cause is Cause.TOKEN_REFUSED and setting in found.detail, found.detail
