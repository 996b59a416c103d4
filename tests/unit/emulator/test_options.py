"""The option table: what a command line may say of a control plane."""

from __future__ import annotations

from pathlib import Path

import pytest

from modalflow.emulator import listening
from modalflow.emulator.control_plane.wiring import wire
from modalflow.emulator.options import TOKEN_SECRET_VARIABLE, Options, table
from modalflow.emulator.state.disk_space import StateError
from modalflow.emulator.state.state_dir import StateDir


def test_a_command_line_says_the_same_as_the_options(tmp_path: Path) -> None:
    """What to_argv and to_environ write, from_argv reads back, and the secret is not in the command line."""
    options = Options(
        port=1234,
        state_dir=tmp_path,
        max_containers=2,
        scaledown_window=1.5,
        network="none",
        with_parent=True,
        token_id="ak-1",
        token_secret="as-1",
        latency="normal(80ms,20ms)",
        faults=["*:internal,p=0.1", "clock:skew=-3s"],
        fault_seed=3,
    )
    argv = options.to_argv()
    assert Options.from_argv(argv, options.to_environ()) == options
    assert "as-1" not in " ".join(argv)
    assert "as-1" not in repr(options)


def test_defaults_need_no_words() -> None:
    """An unchanged option is neither in the command line nor in the environment."""
    assert Options().to_argv() == []
    assert Options().to_environ() == {}


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"host": "0.0.0.0"}, "host is '0.0.0.0', which stands for every network"),
        ({"host": "::"}, "which stands for every network"),
        ({"host": "8.8.8.8"}, "host is '8.8.8.8'; expected a loopback address"),
        ({"host": "airflow.example"}, "host is 'airflow.example'; expected a loopback address"),
        ({"host": "172.17.0.1", "network": "none"}, "containers without a network cannot reach it"),
        ({"host": "172.17.0.1", "token_secret": "as-short"}, "token_secret has 8 characters; expected at least 16"),
        ({"port": 70_000}, "port"),
        ({"max_containers": 0}, "max_containers"),
        ({"scaledown_window": 0}, "scaledown_window"),
        ({"log_level": "loud"}, "log_level"),
        ({"network": "bridge"}, "network is 'bridge'; expected one of host, none"),
        ({"latency": "80"}, "latency"),
        ({"faults": ["FunctionMap:nonsense"]}, "FunctionMap:nonsense"),
        ({"token_secret": ""}, "token_secret"),
    ],
)
def test_a_wrong_value_is_named(wrong: dict[str, object], named: str) -> None:
    """An error says which option is wrong and what was expected."""
    with pytest.raises(ValueError, match=named):
        Options(**wrong)  # type: ignore[arg-type]


def test_a_private_network_can_be_named_with_a_warning() -> None:
    """The user names the network by this machine's address in it, and learns what its programs can do."""
    options = Options(host="172.17.0.1", token_secret="as-0123456789abcdef")
    assert "Every program in this network with the token can run commands" in listening.warning(options.host)
    assert listening.warning(Options().host) == ""


def test_a_wrong_command_line_ends_with_a_usage_message(capsys: pytest.CaptureFixture[str]) -> None:
    """The server process says what is wrong and ends with 2."""
    for argv in (["--unknown"], ["--port", "many"], ["--max-containers", "0"]):
        with pytest.raises(SystemExit, match="2"):
            Options.from_argv(argv, {TOKEN_SECRET_VARIABLE: "s"})
        assert argv[0].strip("-") in capsys.readouterr().err.replace("_", "-")


def test_every_option_has_help() -> None:
    """No option is without a sentence for the person who reads --help."""
    assert all(option.help.endswith(".") for option in table())


def test_a_kept_secret_is_long_enough_for_a_network(tmp_path: Path) -> None:
    """One that was given for a loopback address is kept in the state folder, and counts again later."""
    state = StateDir(tmp_path)
    state.token(None, "as-short")
    with pytest.raises(StateError, match=r"token_secret has 8 characters.*Remove token\.json in"):
        wire(Options(host="172.17.0.1", state_dir=tmp_path), state)
    state.close()
