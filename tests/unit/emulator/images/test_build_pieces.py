"""What a function prints while it builds an image, in pieces: its Secrets stay out of the log."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from modal_proto import api_pb2

from modalflow.emulator.images.builder import Build, secrets_to_redact

OUT, ERR = api_pb2.FILE_DESCRIPTOR_STDOUT, api_pb2.FILE_DESCRIPTOR_STDERR
SUCCESS = api_pb2.GenericResult.GENERIC_STATUS_SUCCESS


def log(build: Build, source: int = OUT) -> str:
    return "".join(line.data for line in build.lines if line.file_descriptor == source)


@given(st.lists(st.integers(min_value=1, max_value=6)))
def test_a_secret_that_comes_in_two_pieces_is_blotted_out(sizes: list[int]) -> None:
    """However a line is cut, no piece shows what a whole line would not."""
    text = "token=hunter2 tok hunt\nhunter2"
    build = Build(secrets=secrets_to_redact(["hunter2", "hunted"]))
    start = 0
    for size in [*sizes, len(text)]:
        if piece := text[start : start + size]:
            for part in piece.splitlines(keepends=True):
                build.piece(part, OUT)
        start += size
    build.end(SUCCESS)
    assert log(build) == "token=*** tok hunt\n***"


def test_outputs_are_kept_apart_and_shown_at_once() -> None:
    """What cannot be the beginning of a secret is not held back."""
    build = Build(secrets=secrets_to_redact(["hunter2"]))
    build.piece("50% hun", OUT)
    build.piece("ter2", ERR)
    assert (log(build, OUT), log(build, ERR)) == ("50% ", "ter2")
    build.end(SUCCESS)
    assert log(build, OUT) == "50% hun"
