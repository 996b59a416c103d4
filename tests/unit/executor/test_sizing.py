"""The size of a try: what grows, what follows from runs, and where the limits are."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modalflow.config.values import AUTO, LONGEST_TIMEOUT, MOST_MEMORY
from modalflow.cost.history import MEMORY_SIZES, Run
from modalflow.cost.usage import OUT_OF_MEMORY, Reserved
from modalflow.errors import WorkloadRejectedError
from modalflow.executor.submission.resources import read_executor_config
from modalflow.executor.submission.sizing import Known, Sized, has_terms, sized, terms_of, without_terms
from modalflow.protocol.shortage import Shortage

PROFILE = {"memory": [1024, 2048], "cpu": 1.0, "timeout": 3600, "concurrency": 4}
BARE = {"timeout": LONGEST_TIMEOUT, "concurrency": 4}


def size(
    wanted: dict[str, Any],
    of_profile: dict[str, Any] = PROFILE,
    *,
    runs: int = 0,
    used: float = 100.0,
    task_timeout: float = LONGEST_TIMEOUT,
    **had: float,
) -> Sized:
    request = read_executor_config({"modal": wanted})
    terms = terms_of(of_profile, request.resources, request.terms, task_timeout)
    run = Run(1.0, "success", 10.0, used, used / 100, None)
    return sized(terms, request.resources, Known((run,) * runs, Shortage(**had)))


@pytest.mark.parametrize(
    ("wanted", "of_profile", "had", "memory"),
    [
        ({"memory": 1024, "memory_growth": 2}, BARE, 1024, 2048),
        ({"memory": 1024, "memory_growth": 1.5}, BARE, 1024, 1536),
        ({"memory": (512, 1024), "memory_growth": 2}, BARE, 1024, [1024, 2048]),
        ({"memory": (128, 1024), "memory_growth": 4, "memory_limit": 1536}, BARE, 1024, [192, 1536]),
        ({"memory_growth": 2}, PROFILE, 2048, [2048, 4096]),
        ({}, PROFILE | {"memory_growth": 2}, 2048, [2048, 4096]),
        ({}, PROFILE | {"memory_growth": 2, "memory_limit": 3072}, 2048, [1536, 3072]),
        ({"memory_growth": 2}, BARE, 128, 256),
        ({"memory_growth": 10}, BARE, 100_000, MOST_MEMORY),
        ({"memory": 1024, "memory_growth": 2}, BARE, 2048, 4096),
        # The user has raised it since.
        ({"memory": 8192, "memory_growth": 2}, BARE, 1024, 8192),
    ],
)
def test_a_try_after_one_that_ran_out_of_memory_gets_more(
    wanted: dict[str, Any], of_profile: dict[str, Any], had: float, memory: Any
) -> None:
    """As many times as the factor of what that one had, request and limit alike; never more than the limits."""
    found = size(wanted, of_profile, memory_mib=had)
    assert found.resources.plain()["memory"] == memory
    assert "of memory instead of" in found.note


def test_the_log_names_what_it_was_and_what_it_is() -> None:
    """From what to what, and by which setting."""
    found = size({"memory": "1GiB", "memory_growth": 2}, memory_mib=1024)
    assert found.note == (
        "This try may use 2 GiB of memory instead of 1 GiB, with which an earlier try ran out of memory "
        "(memory_growth = 2)."
    )
    late = size({"timeout": 3600, "timeout_growth": 1.5}, timeout=3600)
    assert late.resources.plain()["timeout"] == 5400
    assert late.note == (
        "This try may take 5,400 s instead of 3,600 s, at which Modal ended an earlier try (timeout_growth = 1.5)."
    )


def test_at_its_limit_a_task_gets_no_more_and_its_log_says_so() -> None:
    """The try has what the last one had."""
    found = size({"memory": 1024, "memory_growth": 2, "memory_limit": 2048}, memory_mib=2048)
    assert found.resources.plain()["memory"] == 2048
    assert found.note == "An earlier try ran out of memory with 2 GiB, and its memory_limit allows no more."
    late = size({"timeout": 60, "timeout_growth": 2, "timeout_limit": 90}, timeout=90)
    assert late.resources.plain()["timeout"] == 90
    assert late.note == "Modal ended an earlier try at its timeout of 90 s, and its limit allows no more."


def test_only_what_is_to_grow_grows() -> None:
    """A timeout gives no memory, and a shortage without a factor gives nothing."""
    assert size({"memory": 1024, "memory_growth": 2}, timeout=60).resources.plain()["memory"] == 1024
    assert size({"timeout": 60, "timeout_growth": 2}, memory_mib=512).resources.plain()["timeout"] == 60
    untouched = size({"memory": 1024, "timeout": 60, "memory_limit": 4096}, memory_mib=1024, timeout=60)
    assert untouched.resources.plain() == {"memory": 1024, "timeout": 60} and not untouched.note


def test_a_timeout_grows_no_further_than_the_executor_waits() -> None:
    """[modal_executor] task_timeout ends every try, whatever Modal allows it."""
    found = size({"timeout": 3000, "timeout_growth": 2}, task_timeout=4000, timeout=3000)
    assert found.resources.plain()["timeout"] == 4000


@pytest.mark.parametrize(
    ("wanted", "of_profile", "runs", "used", "expected"),
    [
        ({"memory": AUTO}, BARE, 14, 1000, {"memory": 1536}),
        ({"memory": AUTO, "cpu": AUTO}, BARE, 3, 100, {"memory": 128, "cpu": 2.0}),
        ({"memory": AUTO}, PROFILE, 3, 100, {"memory": [128, 2048]}),
        ({"memory": AUTO}, PROFILE, 3, 10_000, {"memory": [12_288, 12_288]}),
        ({"memory": AUTO, "memory_limit": "2GiB"}, BARE, 3, 10_000, {"memory": 2048}),
        ({"cpu": AUTO}, PROFILE | {"cpu": [1.0, 2.0]}, 3, 300, {"cpu": [4.0, 4.0]}),
        ({"gpu": "T4"}, BARE | {"memory": AUTO}, 3, 100, {"memory": 128, "gpu": "T4"}),
        ({"memory": 512}, BARE | {"memory": AUTO}, 3, 100, {"memory": 512}),
        # Without a history, the profile decides.
        ({"memory": AUTO, "cpu": AUTO}, PROFILE, 0, 0, {"memory": [1024, 2048], "cpu": 1.0}),
        ({"memory": AUTO}, BARE | {"memory": AUTO}, 0, 0, {}),
    ],
)
def test_a_task_sizes_itself(
    wanted: dict[str, Any], of_profile: dict[str, Any], runs: int, used: float, expected: dict[str, Any]
) -> None:
    """By its last runs, in the task or for all tasks of a profile; the profile's limit and memory_limit hold."""
    found = size(wanted, of_profile, runs=runs, used=used)
    assert found.resources.plain() == expected
    automatic = {name for name in ("cpu", "memory") if (wanted.get(name) or of_profile.get(name)) == AUTO}
    assert found.runs == dict.fromkeys(automatic, runs)


def test_a_task_that_sizes_itself_grows_at_once() -> None:
    """Its next try has more even if the history does not have the last one yet."""
    found = size({"memory": AUTO}, BARE, runs=3, used=900, memory_mib=1536)
    assert found.resources.plain()["memory"] == 3072
    assert "3 GiB of memory instead of 1.5 GiB" in found.note and "memory = 'auto'" in found.note


@given(
    st.sampled_from(MEMORY_SIZES),
    st.floats(1.01, 10),
    st.one_of(st.none(), st.integers(128, MOST_MEMORY)),
    st.floats(0, 2 * MOST_MEMORY),
)
@settings(max_examples=200, deadline=None)
def test_growth_holds_its_limits(memory: float, growth: float, limit: int | None, had: float) -> None:
    """For all values: not below what the task asks for, not above its limit, and more than before unless at it."""
    wanted = {"memory": int(memory), "memory_growth": growth}
    if limit is not None:
        wanted["memory_limit"] = max(limit, int(memory))
    found = size(wanted, BARE, memory_mib=had).resources.plain()["memory"]
    most = wanted.get("memory_limit", MOST_MEMORY)
    assert memory <= found <= most
    assert found > had or found == most or not had


@pytest.mark.parametrize(
    ("wanted", "of_profile", "said"),
    [
        ({"memory_limit": 1024}, PROFILE, "memory_limit of the task and its profile is 1024; expected at least its"),
        ({"memory": 8192}, BARE | {"memory_limit": 4096, "memory_growth": 2.0}, "at least its memory, 8192 MiB"),
        ({"timeout_limit": 60}, PROFILE, "at least its timeout, 3600 seconds"),
    ],
)
def test_a_task_that_contradicts_its_profile_is_turned_away(
    wanted: dict[str, Any], of_profile: dict[str, Any], said: str
) -> None:
    """Each of the two is right alone, so only the executor can notice: it fails this task."""
    with pytest.raises(WorkloadRejectedError, match=said):
        size(wanted, of_profile)


def test_no_container_is_told_how_its_size_was_decided() -> None:
    """Growth and "auto" of a profile stay with the executor."""
    of_profile = PROFILE | {"cpu": AUTO, "memory_growth": 2.0, "timeout_limit": 7200}
    assert has_terms(of_profile) and not has_terms(PROFILE)
    assert without_terms(of_profile) == {"memory": [1024, 2048], "timeout": 3600, "concurrency": 4}


def test_a_run_out_of_memory_counts_with_the_factor_of_the_task() -> None:
    """In the history as for the next try."""
    request = read_executor_config({"modal": {"memory": AUTO, "memory_growth": 4}})
    terms = terms_of(BARE, request.resources, request.terms, LONGEST_TIMEOUT)
    run = Run(1.0, OUT_OF_MEMORY, 10.0, 0.0, 0.0, Reserved(1, 512), 1024)
    assert sized(terms, request.resources, Known((run,))).resources.plain() == {"memory": 4096}
