"""Steps of an image that were not executed are named in what a user reads about a failed import."""

from __future__ import annotations

import io
import pickle
from typing import Any

import pytest
from modal._serialization import serialize
from modal_proto import api_pb2

from modalflow.emulator.containers.launch.hints import NAMED_STEPS, explained, unexecuted

FAILURE = api_pb2.GenericResult.GENERIC_STATUS_FAILURE
STEPS = ("RUN make cowsay", "FROM nvidia/cuda:12 (not pulled)")


def failed(error: BaseException, pickled: bytes) -> api_pb2.GenericResult:
    """A result as the container runtime makes it."""
    return api_pb2.GenericResult(status=FAILURE, exception=repr(error), traceback=f"Traceback\n{error}\n", data=pickled)


def raised(module: str) -> ModuleNotFoundError:
    try:
        __import__(module)
    except ModuleNotFoundError as error:
        return error
    raise AssertionError(f"{module} is there")


def unpickled_in_python(data: bytes) -> Any:
    """With the unpickler that is strict about frames."""
    return pickle._Unpickler(io.BytesIO(data)).load()


@pytest.mark.parametrize("protocol", range(3, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("module", ["cowsay_that_is_nowhere", 'it\'s_"quoted"', "x" * 70_000, "\u00e4\u00f6\U0001f600"])
def test_a_failed_import_says_which_steps_were_not_executed(protocol: int, module: str) -> None:
    """In the message of the exception that the caller catches, whose type and name are as they were."""
    error = raised(module)
    for pickled in (pickle.dumps(error, protocol=protocol), serialize(error)):
        said = explained(failed(error, pickled), STEPS)
        for loads in (pickle.loads, unpickled_in_python):
            found = loads(said.data)
            assert type(found) is ModuleNotFoundError
            assert found.name == module
            assert str(found).startswith(f"No module named {module!r} (Perhaps because the local control plane did not")
            assert str(found).endswith("2 steps of the image: RUN make cowsay; FROM nvidia/cuda:12 (not pulled))")
    assert "RUN make cowsay" in said.exception
    assert "RUN make cowsay" in said.traceback


def test_an_import_error_with_other_arguments_keeps_them() -> None:
    """What cannot be read off its text gets the hint alone."""
    error = ImportError("a", 1)
    found = pickle.loads(explained(failed(error, pickle.dumps(error)), STEPS).data)
    assert found.args == ("a", 1)
    assert "RUN make cowsay" in str(found)


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("ModuleNotFound"), RuntimeError("ImportError('x')")])
def test_other_errors_are_as_they_were(error: BaseException) -> None:
    """And so are successes, and failed imports of images of which every step was executed."""
    result = failed(error, pickle.dumps(error))
    assert explained(result, STEPS) == result
    failing = failed(raised("nowhere_at_all"), b"whatever")
    assert explained(failing, ()) == failing
    done = api_pb2.GenericResult(status=api_pb2.GenericResult.GENERIC_STATUS_SUCCESS, data=b"x")
    assert explained(done, STEPS) == done


def test_data_that_is_no_pickle_stays() -> None:
    """A blob, or data in another format, is sent on as it is; the text has the hint."""
    error = raised("nowhere_at_all")
    assert explained(failed(error, b"no pickle"), STEPS).data == b"no pickle"
    blob = api_pb2.GenericResult(status=FAILURE, exception=repr(error), data_blob_id="bl-1")
    assert explained(blob, STEPS).data_blob_id == "bl-1"


def test_the_line_is_short() -> None:
    """Many steps are counted, long ones cut, repeated ones named once."""
    line = unexecuted([f"RUN step {n} {'x' * 500}" for n in range(50)])
    assert f"and {50 - NAMED_STEPS} more" in line
    assert len(line) < 1200
    assert unexecuted(["RUN a\n  b", "RUN a\n  b"]).endswith("1 step of the image: RUN a b")
    assert unexecuted([]) == ""
