"""What a machine signs tokens with, as another one can compare it; with Airflow's own generator and keys."""

from __future__ import annotations

import json
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from modalflow.airflow_compat import tokens
from modalflow.airflow_compat.tokens import PRIVATE_KEY, SECRET, differences, settings_to_compare, trial_token
from modalflow.airflow_compat.versions import AIRFLOW_V_3_2_PLUS
from modalflow.errors import ModalflowError

API_AUTH = "AIRFLOW__API_AUTH__"
ONE, OTHER = "one-secret-" + "1" * 64, "other-secret-" + "2" * 64
TI = "00000000-0000-4000-8000-000000000001"


@pytest.fixture(autouse=True)
def a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{API_AUTH}JWT_SECRET", ONE)


def key_file(folder: Path, key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> str:
    file = folder / "key.pem"
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return str(file)


def test_a_trial_token_is_a_workloads_and_short_lived() -> None:
    """For one task instance, valid for as long as asked, and good for no more than a start."""
    claims = jwt.decode(trial_token(TI, 90), ONE, ["HS512"], audience="urn:airflow.apache.org:task")
    assert claims["sub"] == TI and claims["exp"] - claims["iat"] == 90
    assert claims.get("scope") == ("workload" if AIRFLOW_V_3_2_PLUS else None)


def test_a_fingerprint_is_no_secret() -> None:
    """Salted: two of the same secret differ; compared with the same salt they are the same."""
    first, second = settings_to_compare(), settings_to_compare()
    assert ONE not in json.dumps([first, second]) and first[SECRET] != second[SECRET]
    assert differences(first) == differences(second) == []


@pytest.mark.parametrize(
    ("variable", "value", "different"),
    [
        (f"{API_AUTH}JWT_SECRET", OTHER, [SECRET]),
        (f"{API_AUTH}JWT_ISSUER", "us", ["[api_auth] jwt_issuer"]),
        (f"{API_AUTH}JWT_ALGORITHM", "HS256", ["[api_auth] jwt_algorithm"]),
        ("AIRFLOW__EXECUTION_API__JWT_AUDIENCE", "them", ["[execution_api] jwt_audience"]),
        # This machine cannot sign: there is nothing to compare.
        (f"{API_AUTH}JWT_SECRET", "", []),
    ],
)
def test_what_differs_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, different: list[str]
) -> None:
    """Each of the settings that an API server checks."""
    theirs = settings_to_compare()
    monkeypatch.setenv(variable, value)
    assert differences(theirs) == different


@pytest.mark.parametrize("kind", ["rsa", "ed25519"])
def test_a_private_key_instead_of_a_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str) -> None:
    """Its public half is compared, and a machine with a secret differs in both."""
    with_secret = settings_to_compare()
    made = rsa.generate_private_key(65537, 2048) if kind == "rsa" else ed25519.Ed25519PrivateKey.generate()
    monkeypatch.setenv(f"{API_AUTH}JWT_PRIVATE_KEY_PATH", key_file(tmp_path, made))
    monkeypatch.delenv(f"{API_AUTH}JWT_SECRET")
    theirs = settings_to_compare()
    assert PRIVATE_KEY in theirs and SECRET not in theirs and differences(theirs) == []
    assert PRIVATE_KEY in differences(with_secret)
    monkeypatch.setenv(f"{API_AUTH}JWT_PRIVATE_KEY_PATH", key_file(tmp_path, ed25519.Ed25519PrivateKey.generate()))
    assert PRIVATE_KEY in differences(theirs)
    assert "JWT_PRIVATE_KEY_PATH" in tokens.origin_of_the_key()


@pytest.mark.parametrize("file", ["nowhere.pem", "empty.pem", "text.pem", "ec.pem"])
def test_a_key_that_cannot_sign_raises_one_kind_of_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: str
) -> None:
    """Whatever is wrong with it, an executor starts all the same, and the doctor says what it is."""
    (tmp_path / "empty.pem").touch()
    (tmp_path / "text.pem").write_text("no key")
    Path(key_file(tmp_path, ec.generate_private_key(ec.SECP256R1()))).rename(tmp_path / "ec.pem")
    monkeypatch.setenv(f"{API_AUTH}JWT_PRIVATE_KEY_PATH", str(tmp_path / file))
    with pytest.raises(ModalflowError, match="cannot sign a task's token here"):
        trial_token(TI, 90)
    assert SECRET not in settings_to_compare() and PRIVATE_KEY not in settings_to_compare()


@pytest.mark.parametrize("theirs", [{}, {"salt": 7}, {"salt": "x", SECRET: ["a"]}, {"salt": "x", "new setting": "1"}])
def test_what_a_container_may_have_written_instead_does_not_raise(theirs: dict[str, object]) -> None:
    """Snapshots are in a Dict that every container can write."""
    assert isinstance(differences(theirs), list)
