"""Passages of prose: paragraphs of Markdown, and docstrings, comments and messages of Python files.

Owns the definition of prose: without code blocks, HTML comments, addresses and fragments of programs.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TypeGuard


class Kind(Enum):
    """The place of a passage."""

    PARAGRAPH = "paragraph"
    TABLE = "table"
    MESSAGE = "message"
    DOCSTRING = "docstring"
    FUNCTION_DOCSTRING = "docstring of a function"
    COMMENT = "comment"


@dataclass(frozen=True)
class Passage:
    """A unit of prose: a paragraph, a docstring, a comment or a message."""

    path: str
    line: int
    text: str
    kind: Kind = Kind.PARAGRAPH


#: Stands for a code span or a value, and counts as one word.
CODE = "X"

_SPANS = re.compile(r"``[^`]+``|`[^`]+`")
_LINKS = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_ADDRESSES = re.compile(r"<?https?://[^\s>)]+>?")
_TAGS = re.compile(r"<!--.*?-->|</?[a-zA-Z][^>]*>", re.DOTALL)
_MARKS = re.compile(r"[*_]{2}|(?<!\w)[*_](?=\w)|(?<=[\w.,;:!?])[*_](?!\w)")
_LIST_ITEM = re.compile(r"^\s*(?:[-*+]|\d+[.)])\s+")
_HEADING = re.compile(r"^#{1,6}\s+")
_IGNORES = re.compile(
    r"#?\s*(?:noqa|type: ignore|pragma|fmt|shellcheck)\b(?::?\s*[A-Z]+\d+(?:,\s*[A-Z]+\d+)*|\[[^\]]*\])?"
)
_WORD = re.compile(r"[A-Za-z][A-Za-z'-]*")


def words(text: str) -> list[str]:
    """Return the words of a text."""
    return _WORD.findall(text)


def plain(text: str) -> str:
    """Return a text without marks: code spans become one word, links their text, addresses nothing."""
    for pattern, replacement in ((_SPANS, CODE), (_LINKS, r"\1"), (_ADDRESSES, " "), (_TAGS, " "), (_MARKS, "")):
        text = pattern.sub(replacement, text)
    return " ".join(text.split())


def of_markdown(path: str, text: str) -> Iterator[Passage]:
    """Return the paragraphs, list items, headings and table rows of a page."""
    block: list[str] = []
    begin = 0
    for number, line in enumerate([*_without_code(text), ""], 1):
        starts_anew = (
            not line.strip() or _LIST_ITEM.match(line) or _HEADING.match(line) or line.lstrip().startswith("|")
        )
        if starts_anew and block:
            yield from _passage(path, begin, " ".join(block))
            block = []
        if line.lstrip().startswith("|"):
            cells = [plain(cell) for cell in line.strip().strip("|").split("|")]
            for cell in cells:
                yield from _passage(path, number, cell, Kind.TABLE)
        elif line.strip():
            begin = begin if block else number
            block.append(_LIST_ITEM.sub("", _HEADING.sub("", line), count=1).lstrip("> "))
            if _HEADING.match(line):
                yield from _passage(path, begin, block.pop())


def _passage(path: str, line: int, text: str, kind: Kind = Kind.PARAGRAPH) -> Iterator[Passage]:
    if words(text := plain(text)):
        yield Passage(path, line, text, kind)


def _without_code(text: str) -> Iterator[str]:
    """Return the lines of a page, those of code blocks and HTML comments emptied."""
    fence, before, in_list = "", "", False
    for line in re.sub(r"<!--.*?-->", lambda found: "\n" * found[0].count("\n"), text, flags=re.DOTALL).split("\n"):
        mark = re.match(r"\s*(```+|~~~+)", line)
        if fence:
            fence = "" if mark and line.strip() == fence else fence
            yield ""
        elif mark:
            fence = mark[1]
            yield ""
        elif line.startswith("    ") and not before.strip() and not in_list:
            yield ""  # An indented block; its next line finds an empty one before it.
        else:
            if line.strip():
                in_list = bool(_LIST_ITEM.match(line)) or (in_list and line.startswith(" "))
            before = line
            yield line


def of_python(path: str, text: str) -> Iterator[Passage]:
    """Return the docstrings, messages and comments of a Python file."""
    nodes = [node for node in _nodes(ast.parse(text)) if node.__class__ in _OF_INTEREST]
    docstrings = {found: kind for node in nodes for found, kind in _docstrings(node)}
    fragments = {part for node in nodes for part in _fragments(node)}
    covered: dict[int, list[tuple[int, int]]] = {}
    for node in nodes:
        if not _is_text(node):
            continue
        for number in range(node.lineno, (node.end_lineno or node.lineno) + 1):
            first = node.col_offset if number == node.lineno else 0
            last = (node.end_col_offset or 0) if number == node.end_lineno else 10_000
            covered.setdefault(number, []).append((first, last))
        if node in docstrings:
            yield from _docstring(path, node, docstrings[node])
        elif node not in fragments and _is_message(value := plain(_value(node))):
            yield Passage(path, node.lineno, value, Kind.MESSAGE)
    yield from _comments(path, text.split("\n"), covered)


_OF_INTEREST = {
    ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef, ast.Call, ast.Constant, ast.JoinedStr
}  # fmt: skip
#: Nodes without a text in them: half of all nodes.
_LEAVES = {ast.Name, ast.Load, ast.Store, ast.Del, ast.alias, ast.Import, ast.ImportFrom}


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Return every node with a possible text, as ``ast.walk`` does in three times the time."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        for name in node._fields:
            value = getattr(node, name, None)
            if value.__class__ is list:
                waiting.extend(item for item in value if isinstance(item, ast.AST) and item.__class__ not in _LEAVES)
            elif isinstance(value, ast.AST) and value.__class__ not in _LEAVES:
                waiting.append(value)


def _is_text(node: ast.AST) -> TypeGuard[ast.Constant | ast.JoinedStr]:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _docstring(path: str, node: ast.Constant | ast.JoinedStr, kind: Kind) -> Iterator[Passage]:
    text = _value(node).replace("\b", "")
    for paragraph in re.split(r"\n\s*\n", text):
        shown = re.sub(r"^\s*(?:>>> |\$ |\.\. ).*$", "", paragraph, flags=re.MULTILINE)
        if words(shown := plain(shown)):
            yield Passage(path, node.lineno + text[: text.index(paragraph)].count("\n"), shown, kind)
        if kind is Kind.FUNCTION_DOCSTRING:
            kind = Kind.DOCSTRING  # Only the first paragraph begins with a verb.


def _docstrings(node: ast.AST) -> Iterator[tuple[ast.Constant, Kind]]:
    """Return the docstring of a module, class or function, and those of the attributes in it."""
    if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return
    is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    for statement in node.body[:1] if is_function else node.body:
        match statement:
            case ast.Expr(value=ast.Constant(value=str()) as found):
                yield found, Kind.DOCSTRING if isinstance(node, ast.Module | ast.ClassDef) else _kind_of_function(node)


def _kind_of_function(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Kind:
    names = [ast.unparse(decorator) for decorator in node.decorator_list]
    if any(re.search(r"\b(command|group)\(|\.(command|group)$", name) for name in names):
        return Kind.MESSAGE  # click prints it as the command's help.
    if any(name.endswith(("property", ".setter", "fixture")) or "fixture(" in name for name in names):
        return Kind.DOCSTRING  # It is read as an attribute: a noun phrase.
    return Kind.FUNCTION_DOCSTRING


def _fragments(node: ast.AST) -> Iterator[ast.AST]:
    """Return the parts of an f-string, and texts with code: patterns and statements in a call."""
    if isinstance(node, ast.JoinedStr):
        yield from (part for part in ast.walk(node) if part is not node)
    elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in _TAKES_CODE:
        yield from (part for argument in node.args for part in ast.walk(argument) if _is_text(part))


_TAKES_CODE = {"compile", "fullmatch", "match", "sub", "execute", "dedent", "getLogger", "text"}


def _value(node: ast.Constant | ast.JoinedStr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    return "".join(str(part.value) if isinstance(part, ast.Constant) else CODE for part in node.values)


def _is_message(text: str) -> bool:
    """Return whether a text is prose, and no key, name or program: three words or more, mostly letters."""
    letters = sum(letter.isalpha() or letter in " ,.'" for letter in text)
    programs = ("import ", "SELECT ", "INSERT ", "DELETE ", "UPDATE ", "CREATE ", "def ", "PRAGMA ", "Traceback")
    return (
        len(re.findall(r"(?<!\S)[A-Za-z]{2,}\b", text)) > 2
        and letters > 0.8 * len(text)
        and not text.startswith(programs)
    )


def _comments(path: str, lines: list[str], strings: dict[int, list[tuple[int, int]]]) -> Iterator[Passage]:
    block: list[str] = []
    begin = 0
    for number, line in enumerate([*lines, ""], 1):
        comment, alone = _comment(line, strings.get(number, []))
        if block and (not comment or not alone):
            yield from _passage(path, begin, " ".join(block), Kind.COMMENT)
            block = []
        if comment and alone:
            begin = begin if block else number
            block.append(comment)
        elif comment:
            yield from _passage(path, number, comment, Kind.COMMENT)


def _comment(line: str, strings: list[tuple[int, int]]) -> tuple[str, bool]:
    """Return the comment on a line, and whether it has the line to itself."""
    for found in re.finditer("#", line):
        at = len(line[: found.start()].encode())
        if not any(first <= at < last for first, last in strings):
            text = _IGNORES.sub("", line[found.start() :]).lstrip("#:! ")
            return text, not line[: found.start()].strip()
    return "", False
