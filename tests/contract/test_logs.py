"""What containers print, as the SDK and the command line show it."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Iterator

import modal
import pytest

from tests.contract.deploying import Deployed
from tests.sdk import needs_sdk
from tests.support import wait_until


@pytest.fixture(scope="module")
def compute(client: modal.Client) -> Iterator[Deployed]:
    deployed = Deployed("compute_app", "test-logs", client)
    yield deployed
    deployed.stop()


@needs_sdk("1.5.3")
def test_a_finished_call_has_all_its_lines(compute: Deployed) -> None:
    """Once the result is there so is everything printed before it: both outputs, and what had no newline."""
    call = compute.function("prints").spawn(50)
    call.get(timeout=60)
    entries = list(call.logs.fetch())
    stdout = "".join(e.message for e in entries if e.source == "stdout")
    assert stdout == "".join(f"line {n} on stdout\n" for n in range(50)) + "without a newline"
    assert [e.message for e in entries if e.source == "stderr"] == ["on stderr\n"]


@needs_sdk("1.5.3")
def test_lines_belong_to_their_call(compute: Deployed) -> None:
    """Calls that ran in the same container, one after another, each have their own lines."""
    calls = [compute.function("prints").spawn(n) for n in (1, 2, 3)]
    for call in calls:
        call.get(timeout=60)
    counts = [sum("on stdout" in e.message for e in call.logs.fetch()) for call in calls]
    assert counts == [1, 2, 3]


@needs_sdk("1.5.3")
def test_tail_is_the_newest(compute: Deployed) -> None:
    """tail(n) gives the last n entries, oldest first."""
    call = compute.function("prints").spawn(20)
    call.get(timeout=60)
    tail = [e.message for e in call.logs.tail(3, source="stdout")]
    assert tail == ["line 18 on stdout\n", "line 19 on stdout\n", "without a newline"]


@needs_sdk("1.5.3")
def test_stream_follows_a_call_to_its_end(compute: Deployed) -> None:
    """stream() of a call ends by itself after the call's last line."""
    call = compute.function("prints").spawn(5)
    streamed = "".join(e.message for e in call.logs.stream(timeout=60) if e.source == "stdout")
    assert streamed.endswith("line 4 on stdout\nwithout a newline")


@needs_sdk("1.5.4")
def test_logs_of_an_app_can_be_searched(compute: Deployed) -> None:
    """An app's logs hold those of all its functions, and can be had by time and text."""
    since = datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=5)
    compute.call("prints", 12)
    app = modal.App.lookup(compute.name, client=compute.client)
    found = [e.message for e in app.logs.fetch(since=since, search_text="line 11")]
    assert found
    assert set(found) == {"line 11 on stdout\n"}


@needs_sdk("1.5.3")
def test_the_traceback_is_in_the_log(compute: Deployed) -> None:
    """What a function raises is printed, for whoever looks at the log and not at the result."""
    call = compute.function("fail").spawn("look here")
    with pytest.raises(ValueError, match="look here"):
        call.get(timeout=60)
    wait_until(lambda: any("look here" in e.message for e in call.logs.fetch()), what="the traceback")


@needs_sdk("1.6")
def test_logs_of_a_function(compute: Deployed) -> None:
    """A function's logs hold the lines of its calls and of no other's; following them ends when nothing more comes."""
    function, began = compute.function("prints"), datetime.datetime.now(datetime.UTC)
    function.for_each([1, 2])
    compute.function("environment").remote()
    entries = list(function.logs.fetch(since=began, source="stdout"))
    assert sum(e.message == "line 0 on stdout\n" for e in entries) == 2
    assert {e.object_id for e in entries} == {function.object_id}
    assert [e.message for e in function.logs.tail(1, source="stderr")] == ["on stderr\n"]
    assert list(function.logs.fetch(since=began, until=began)) == []
    streamed = [e.message for e in function.logs.stream(timeout=1)]
    assert streamed.count("line 1 on stdout\n") >= 1
    assert list(compute.function("add").logs.tail(5)) == []


@pytest.fixture
def answers(client: modal.Client) -> Iterator[modal.Queue]:
    """A Queue by whose items the function ``prompts`` goes on."""
    name = f"answers-{uuid.uuid4().hex[:8]}"
    queue = modal.Queue.from_name(name, create_if_missing=True, client=client)
    queue.hydrate()
    yield queue
    modal.Queue.objects.delete(name, client=client)


@needs_sdk("1.5.3")
def test_a_prompt_is_streamed_while_the_function_waits(compute: Deployed, answers: modal.Queue) -> None:
    """The beginning of a line comes before its end; the messages put together are what was printed, and so is what
    is fetched later: one entry for the whole line."""
    pieces = ["Continue? [y/N] ", "\r 50%", "\r100%\n", "ä€😀 no newline"]
    call = compute.function("prompts").spawn(answers.name, *pieces)
    streamed, answered = "", 0
    for entry in call.logs.stream(timeout=60):
        streamed += entry.message
        # Each answer is given to what was seen: nothing that is streamed waits for the end of the line.
        while answered < len(pieces) - 1 and streamed == "".join(pieces[: answered + 1]):
            answered += 1
            answers.put(answered)
    assert streamed == "".join(pieces)
    call.get(timeout=60)
    line, rest = "".join(pieces[:-1]), pieces[-1]
    assert [e.message for e in call.logs.fetch()] == [line, rest]
    assert [e.message for e in call.logs.tail(2)] == [line, rest]
    assert [e.message for e in call.logs.fetch(search_text="[y/N]  50%")] == []
    assert [e.message for e in call.logs.fetch(search_text="[y/N] \r 50%")] == [line]


@needs_sdk("1.5.4")
def test_who_follows_an_app_sees_unfinished_lines_as_the_sdk_prints_them(
    compute: Deployed, answers: modal.Queue
) -> None:
    """Modal's command line shows an unfinished line only if that ends with a carriage return; then it comes whole."""
    mark = uuid.uuid4().hex[:8]
    call = compute.function("prompts").spawn(answers.name, f"{mark} loading...", "done\n")
    followed = []
    for entry in modal.App.lookup(compute.name, client=compute.client).logs.stream(timeout=60):
        if mark in entry.message:
            followed.append(entry.message)
            if len(followed) == 2:
                break
            answers.put("go on")
    assert followed == [f"{mark} loading...\r", f"{mark} loading...done\n"]
    call.get(timeout=60)


@needs_sdk("1.5.3")
def test_what_a_killed_container_began_to_print_is_there(compute: Deployed) -> None:
    """A container that dies within a line leaves what it printed of it."""
    call = compute.function("dies_within_a_line").spawn()
    with pytest.raises(modal.exception.RemoteError):
        call.get(timeout=60)
    # The control plane starts a lost input again, as Modal does.
    assert {e.message for e in call.logs.fetch(source="stdout")} == {"half a line"}
