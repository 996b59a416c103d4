"""The countable rules of the style sheet, and their counts.

Owns the patterns. Knows nothing of limits or of where a passage comes from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from scripts.prose.passages import Kind, Passage, words

LONGEST_SENTENCE = 25
LONGEST_LINE = 120


@dataclass(frozen=True)
class Hit:
    """One place found by a rule."""

    passage: Passage
    found: str
    weight: int = 1
    """How bad it is, beside other places of the same rule."""


@dataclass(frozen=True)
class Rule:
    """A rule, and the formula of its figure."""

    name: str
    unit: str
    find: Callable[[Passage], Iterable[str]]
    total: Callable[[Passage], int]
    """The divisor of the hits: words, sentences or functions."""
    per: float = 1000
    minimum: bool = False
    """Whether a limit is the least, and not the most."""


@dataclass
class Count:
    """The hits of one rule in one class of texts."""

    rule: Rule
    total: int = 0
    hits: list[Hit] = field(default_factory=list)

    @property
    def figure(self) -> float:
        return self.rule.per * len(self.hits) / self.total if self.total else 0.0

    def add(self, passage: Passage) -> None:
        self.total += self.rule.total(passage)
        for found in self.rule.find(passage):
            self.hits.append(Hit(passage, found, len(found.split())))

    def passes(self, limit: float) -> bool:
        return self.figure >= limit if self.rule.minimum else self.figure <= limit


_END = re.compile(r"(?<=[.!?])[\"')]*\s+(?=(?:→ )?[\"'(`]*(?:[A-Z0-9`]|modalflow\b))")


def sentences(text: str) -> list[str]:
    """Split a passage into sentences, at full stops, question marks and exclamation marks before a new beginning."""
    return [part for part in _END.split(text) if words(part)]


def _any(*patterns: str) -> Callable[[Passage], Iterator[str]]:
    compiled = re.compile("|".join(patterns))

    def find(passage: Passage) -> Iterator[str]:
        return (found[0].strip(" ,.;:(") for found in compiled.finditer(passage.text.lower()))

    return find


def _word_count(passage: Passage) -> int:
    return len(words(passage.text))


def _long_sentences(passage: Passage) -> Iterator[str]:
    return (one for one in sentences(passage.text) if len(one.split()) > LONGEST_SENTENCE)


def _sentence_count(passage: Passage) -> int:
    return len(sentences(passage.text))


def _bad_beginning(passage: Passage) -> Iterator[str]:
    found = re.match(r"(The|An?|What|Whether|How|Where|Which|Who|Whose|Why|When|That)\b", passage.text)
    if passage.kind is Kind.FUNCTION_DOCSTRING and found:
        yield found[0]


def _function_count(passage: Passage) -> int:
    return int(passage.kind is Kind.FUNCTION_DOCSTRING)


_PRONOUNS = (
    "all anyone anything anywhere everyone everything everywhere nothing nowhere one or someone something somewhere "
    "what who"
)
#: "Nothing else" is standard English; "else" alone is not.
_NO_PRONOUN = "".join(f"(?<!{word} )" for word in _PRONOUNS.split())

RULES: tuple[Rule, ...] = (
    Rule(
        "tell, say, hear",
        "per 1,000 words",
        _any(r"\b(?:tells?|telling|told|say|says|said|saying|hears?|heard|hearing)\b"),
        _word_count,
    ),
    Rule(
        "that, which, what, who",
        "per 1,000 words",
        _any(r"\b(?:that|which|what|who|whose|whom)\b"),
        _word_count,
    ),
    Rule(
        "where as a condition",
        "per 1,000 words",
        _any(r"(?:^|[.;:,(]\s*|\b(?:and|or|but|except|unless|also|only) )where\b(?! (?:to|are the)\b)"),
        _word_count,
    ),
    Rule(
        "dialect",
        "per 1,000 words",
        _any(
            r"\b(?:whoever|whatever|whichever|somebody|nobody|everybody|anybody)\b",
            _NO_PRONOUN + r"\belse\b",
            r"\bbut for\b",
            r"\bfor ever\b",
            r"\bof (?:before|then|now|today)\b",
            r"\bmend(?:s|ed|ing)?\b",
            r"\b(?:a look|looks?|looked|looking) (?:at|for|into|whether|after|from|where)\b",
            r"\blet(?:s|ting)? go\b",
            r"\b(?:takes?|took|taken|taking) (?:\w+ )?back\b",
            r"\bby (?:itself|themselves|oneself)\b",
            r"\b(?:has|have|had) it that\b",
            r"\bmay well\b",
            r"\b(?:is|are) meant to\b",
            r"\bbears? (?:it|being|that|to)\b",
            r"\b(?:its|their) (?:like|kin)\b",
            r"\bin passing\b",
            r"\banew\b",
        ),
        _word_count,
    ),
    Rule("you, your", "per 1,000 words", _any(r"\byou(?:r|rs|rself|'re|'ll|'ve)?\b"), _word_count, minimum=True),
    Rule("sentences over 25 words", "% of sentences", _long_sentences, _sentence_count, per=100),
    Rule("docstrings without a verb", "% of functions", _bad_beginning, _function_count, per=100),
)


def long_lines(path: str, text: str) -> Iterator[Hit]:
    """Return the lines of a page with more than 120 characters, except code, tables and lines of one word."""
    in_code = False
    for number, line in enumerate(text.split("\n"), 1):
        if re.match(r"\s*(```|~~~)", line):
            in_code = not in_code
        breakable = re.search(r"\S\s+\S", line.strip().lstrip("-*+> "))
        is_code = in_code or line.startswith("    ")
        if len(line) > LONGEST_LINE and breakable and not is_code and not line.lstrip().startswith("|"):
            yield Hit(Passage(path, number, line), f"{len(line)} characters", len(line))
