"""Strange texts and values: what a container, a task or Modal could send, for hypothesis to draw from."""

from __future__ import annotations

from hypothesis import strategies as st

_PIECES = st.one_of(
    st.characters(exclude_categories=()),
    st.text(),
    st.sampled_from("\x00\x07\x08\x0b\x1b\x7f\x85\x9b\r\n\t\ud800\udce9\u2028\u202e\u2066\ufeff\ufffe😀é[]m0;"),
    st.sampled_from(["\x1b[31m", "\x1b[0m", "\x1b]0;title\x07", "\r\n", "[/red]", "\x1b[2J", "%s", "{x}"]),
)

#: Any code points, lone surrogates among them, with those that do harm far more often than by chance.
TEXTS: st.SearchStrategy[str] = st.lists(_PIECES).map("".join)

#: Whatever JSON can say, and what Python's reader takes beside it.
JSON_VALUES: st.SearchStrategy[object] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
