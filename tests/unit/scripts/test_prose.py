"""The counting of prose: what is a passage, and what each rule finds in it."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from scripts.prose.__main__ import count, exceeded, main, table
from scripts.prose.limits import CLASSES, LIMITS
from scripts.prose.passages import Kind, Passage, of_markdown, of_python
from scripts.prose.rules import RULES, Count, long_lines, sentences
from scripts.prose.texts import is_guide


def _texts(page: str) -> list[str]:
    return [passage.text for passage in of_markdown("page.md", dedent(page))]


def _found(rule: str, text: str, kind: Kind = Kind.PARAGRAPH) -> list[str]:
    (chosen,) = [one for one in RULES if one.name == rule]
    return list(chosen.find(Passage("page.md", 1, text, kind)))


def test_a_paragraph_is_one_passage_whatever_its_lines() -> None:
    """Lines of a paragraph are joined; headings, list items and paragraphs are passages of their own."""
    page = """\
        # Logs

        One sentence
        on two lines.
        * **first** - then
          and more
        * second
        """
    assert _texts(page) == ["Logs", "One sentence on two lines.", "first - then and more", "second"]


def test_code_comments_and_addresses_are_not_prose() -> None:
    """Code blocks and HTML comments are left out; a code span is one word and an address is none."""
    page = """\
        <!-- told
        told -->
        ```console
        $ tell said
        ```

            make told

        Run `modalflow deploy` as [the page](https://said.example) or <https://told.example> shows.
        """
    assert _texts(page) == ["Run X as the page or shows."]


def test_a_passage_knows_its_line() -> None:
    """A place in the list leads to the line on which its paragraph begins."""
    assert [passage.line for passage in of_markdown("page.md", "# A\n\nb\nc\n\n```\nx\n```\nd\n")] == [1, 3, 9]


def test_each_cell_of_a_table_is_a_passage() -> None:
    """A row of a table is read cell by cell, without its code."""
    assert _texts("| `a` | some words |\n|---|---|\n") == ["X", "some words"]


_FILE = '''\
"""A module."""

import re

LIMIT = 3  # Seconds until it gives up.
"""An attribute."""
NAME = "modalflow-logs"
PATTERN = re.compile("some words of a pattern")


class Thing:
    """A thing."""

    def run(self, count: int) -> None:
        """Run it.

        The second paragraph.
        """
        # A comment
        # on two lines.  noqa: BLE001
        raise ValueError(f"expected a # of {count} seconds")

    @property
    def name(self) -> str:
        """The name."""
        return "x"


@click.command()
def stop() -> None:
    """Stop it."""
'''


def test_a_python_file_has_docstrings_messages_and_comments() -> None:
    """Names and patterns are not prose, values in an f-string are one word, and a command's docstring is its help."""
    found = {(passage.kind, passage.text) for passage in of_python("file.py", _FILE)}
    assert found == {
        (Kind.DOCSTRING, "A module."),
        (Kind.COMMENT, "Seconds until it gives up."),
        (Kind.DOCSTRING, "An attribute."),
        (Kind.DOCSTRING, "A thing."),
        (Kind.FUNCTION_DOCSTRING, "Run it."),
        (Kind.DOCSTRING, "The second paragraph."),
        (Kind.COMMENT, "A comment on two lines."),
        (Kind.MESSAGE, "expected a # of X seconds"),
        (Kind.DOCSTRING, "The name."),
        (Kind.MESSAGE, "Stop it."),
    }


@pytest.mark.parametrize(
    ("rule", "text", "found"),
    [
        ("tell, say, hear", "It tells what was said; a teller hears.", ["tells", "said", "hears"]),
        ("that, which, what, who", "What that is, whose and whoever", ["what", "that", "whose"]),
        (
            "where as a condition",
            "Where it fails, and where it does not; the folder where it is",
            ["where", "and where"],
        ),
        ("dialect", "Nothing else, or else it fails; else it is mended for ever.", ["else", "mended", "for ever"]),
        ("dialect", "It looks at what it took back by itself", ["looks at", "took back", "by itself"]),
        ("dialect", "It looks like a lookup: look it up.", []),
        ("you, your", "You set yours in your file", ["you", "yours", "your"]),
    ],
)
def test_a_rule_finds_its_words(rule: str, text: str, found: list[str]) -> None:
    """Each rule finds its words in any case and leaves correct neighbours alone."""
    assert _found(rule, text) == found


def test_a_sentence_ends_before_a_new_beginning() -> None:
    """Abbreviations and versions do not end a sentence."""
    assert len(sentences("Airflow 3.1, e.g. the newest, runs. It ends? Yes.")) == 3


def test_a_sentence_of_26_words_is_long() -> None:
    """The limit is 25 words."""
    assert not _found("sentences over 25 words", "word " * 25)
    assert len(_found("sentences over 25 words", "word " * 26)) == 1


def test_only_a_functions_docstring_has_to_begin_with_a_verb() -> None:
    """A class, a module, a property or an attribute is described by a noun."""
    assert _found("docstrings without a verb", "The name of it.", Kind.FUNCTION_DOCSTRING) == ["The"]
    assert not _found("docstrings without a verb", "Return the name.", Kind.FUNCTION_DOCSTRING)
    assert not _found("docstrings without a verb", "The name of it.", Kind.DOCSTRING)


def test_long_lines_are_those_that_could_be_broken() -> None:
    """Code blocks, tables and lines of a single address are as long as they are."""
    long = "word " * 30
    page = f"{long}\n```\n{long}\n```\n| {long} |\n{'x' * 130}\n"
    assert [hit.passage.line for hit in long_lines("page.md", page)] == [1]


def test_a_figure_is_per_thousand_words() -> None:
    """Two hits in ten words are 200 in a thousand, and exceed a limit of 199."""
    counted = Count(RULES[0])
    counted.add(Passage("page.md", 1, "He said so and was told so by his friends"))
    assert counted.figure == 200
    assert counted.passes(200)
    assert not counted.passes(199)


def test_what_exceeds_a_limit_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table marks a figure over its limit, and the last line names rule and class."""
    monkeypatch.setitem(LIMITS["code"], "tell, say, hear", 1.1)
    counts = count([("code", Passage("file.py", 1, "It was said", Kind.COMMENT)), ("ignored", Passage("x", 1, "said"))])
    assert exceeded(counts) == ["you, your in guides", "tell, say, hear in code"]
    assert any("FAIL" in line for line in table(counts))


def test_guides_are_what_users_read() -> None:
    """README and the pages of docs address the reader; reference pages and decisions do not."""
    assert is_guide("README.md")
    assert is_guide("docs/logs.md")
    assert not is_guide("docs/configuration.md")
    assert not is_guide("docs/decisions/tools.md")


def test_every_class_has_limits_of_rules_that_exist() -> None:
    """A misspelt rule or class in the table would never fail."""
    assert set(LIMITS) == set(CLASSES)
    assert all(set(limits) <= {rule.name for rule in RULES} for limits in LIMITS.values())


def test_the_list_names_places_of_the_files_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--list PATH` shows every place in those files and none in others."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "one.py").write_text("# It was said.\n")
    (tmp_path / "README.md").write_text("Told somebody.\n")
    assert main(["--list", "src"], tmp_path) == 1
    printed = capsys.readouterr().out
    assert "src/one.py:1: [said] It was said." in printed
    assert "README.md" not in printed
