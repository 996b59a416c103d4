"""The pages of the documentation: each can be reached, and what they quote of the code is in the code."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

from modalflow.emulator.apps.version import KEPT_VERSIONS
from modalflow.emulator.calls.backlog import MAX_SPAWNED_WAITING, MAX_WAITING
from modalflow.emulator.options import Options
from modalflow.reasons import Cause
from scripts.module_tables import filled, folders, summary

CHECKOUT = Path(__file__).parents[2]
SOURCES = CHECKOUT / "src" / "modalflow"
PAGES = set(
    subprocess.check_output(["git", "ls-files", "-co", "--exclude-standard", "*.md"], cwd=CHECKOUT, text=True).split()
)
INDEX = "docs/index.md"
ARCHITECTURE = (CHECKOUT / "ARCHITECTURE.md").read_text()
TROUBLESHOOTING = (CHECKOUT / "docs/troubleshooting.md").read_text()
GLOSSARY = (CHECKOUT / "docs/glossary.md").read_text()


def links(page: str) -> set[str]:
    """Return the pages that a page links to."""
    targets = re.findall(r"\]\(([^)#:]+\.md)(?:#[^)]*)?\)", (CHECKOUT / page).read_text())
    folder = (CHECKOUT / page).parent
    return {folder.joinpath(target).resolve().relative_to(CHECKOUT).as_posix() for target in targets}


def doors() -> dict[str, list[str]]:
    """Return the sections of docs/index.md with the pages that each one lists."""
    _, *sections = (CHECKOUT / INDEX).read_text().split("\n## ")
    return {
        section.partition("\n")[0]: [
            Path("docs", target).as_posix().replace("docs/../", "")
            for target in re.findall(r"\]\(([^)#:]+\.md)", section)
        ]
        for section in sections
    }


def navigation() -> dict[str, list[str]]:
    """Return the sections of the site's navigation with their pages."""
    _, _, nav = (CHECKOUT / "mkdocs.yml").read_text().partition("\nnav:\n")
    sections: dict[str, list[str]] = {}
    for line in nav.splitlines():
        if section := re.fullmatch(r"  - (.+):", line):
            sections[section[1]] = []
        elif page := re.fullmatch(r" +- (?:.+: )?(\S+\.md)", line):
            list(sections.values())[-1].append(page[1])
    return sections


def test_the_index_has_four_doors() -> None:
    """A reader chooses between four doors, and the site has the same."""
    names = ["Use", "Operate", "The local control plane", "Work on it"]
    assert list(doors()) == names
    assert list(navigation()) == ["Home", *names]


def test_every_page_can_be_reached_from_the_index() -> None:
    """No page of docs/, and no page beside the code, is an orphan."""
    listed = {page for pages in doors().values() for page in pages}
    assert PAGES - listed - {INDEX, "README.md"} == set()


def test_the_site_has_every_page_behind_the_door_that_the_index_has() -> None:
    """The navigation of the site and docs/index.md agree."""
    site = navigation()
    home = site.pop("Home")
    assert {page for pages in site.values() for page in pages} | set(home) == PAGES
    assert {name: set(pages) - set(home) for name, pages in site.items()} == {
        name: set(pages) - set(home) for name, pages in doors().items()
    }


def test_the_readme_leads_to_every_door() -> None:
    """README.md links to the index and to pages behind each door."""
    assert INDEX in links("README.md")
    for name, pages in doors().items():
        assert links("README.md") & set(pages), name


def glossary() -> dict[str, list[str]]:
    """Return the words of the glossary with the modules that own them."""
    _, *entries = GLOSSARY.split("\n## ")
    return {
        entry.partition("\n")[0]: re.findall(
            r"`(modalflow[\w.]*)`", " ".join(entry.split()).partition("In the code:")[2]
        )
        for entry in entries
    }


@pytest.mark.parametrize("word", glossary())
def test_each_word_of_the_glossary_has_a_module(word: str) -> None:
    """The module that a word is said to live in exists."""
    modules = glossary()[word]
    assert modules != []
    assert [module for module in modules if importlib.util.find_spec(module) is None] == []


def test_the_glossary_is_in_order() -> None:
    """Words are found by their first letter."""
    assert list(glossary()) == sorted(glossary(), key=str.lower)


@cache
def texts() -> str:
    """Return every text of the source, one a line; what is filled in later is an ellipsis."""
    found = []
    for path in sorted(SOURCES.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(re.sub(r"%[sdr]|\{\w*\}", "…", node.value))
            elif isinstance(node, ast.JoinedStr):
                parts = [str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values]
                found.append("".join(parts))
    return "\n".join(" ".join(text.split()) for text in found)


#: Of Airflow, and quoted because modalflow explains it.
OF_AIRFLOW = "Dag not found during start up"


def quoted() -> list[str]:
    """Return the messages that the troubleshooting page quotes."""
    blocks = re.findall(r"^```text\n(.*?)^```", TROUBLESHOOTING, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line != OF_AIRFLOW]


@pytest.mark.parametrize("message", quoted())
def test_a_message_that_is_quoted_is_one_of_the_code(message: str) -> None:
    """A reader who searches for a message finds it: its words are those of the source."""
    fragments = [fragment.strip() for fragment in message.split("…")]
    assert [fragment for fragment in fragments if fragment not in texts()] == []


def test_the_causes_that_are_named_exist() -> None:
    """The table of reasons names causes as metrics and docs/lost-work.md do."""
    section = TROUBLESHOOTING.partition("## The task failed with")[2].partition("\n## ")[0]
    named = re.findall(r"^\| .+? \| `([\w-]+)` \|", section, re.MULTILINE)
    assert named != []
    assert set(named) <= {cause.value for cause in Cause}


def test_the_checks_that_are_named_are_those_of_the_doctor() -> None:
    """The names of checks are those that `modalflow doctor` prints."""
    section = TROUBLESHOOTING.partition("## The doctor says")[2].partition("\n## ")[0]
    named = [name for line in re.findall(r"^\* \*\*(.+?)\*\*:", section, re.MULTILINE) for name in line.split("`, `")]
    assert len(named) > 10
    known = texts().splitlines()
    assert [name for name in named if name.strip("`") not in known] == []


def test_the_tables_of_modules_are_those_of_the_source() -> None:
    """ARCHITECTURE.md names every module, in the chapter of its folder. `make docs` writes it anew."""
    assert filled(ARCHITECTURE) == ARCHITECTURE


def test_a_folder_without_a_chapter_is_reported() -> None:
    """Whoever adds or moves a folder is told which chapter to write."""
    with pytest.raises(SystemExit, match="has no chapter of cost: add a heading"):
        filled(ARCHITECTURE.replace("<!-- modules of cost -->", "<!-- modules gone -->"))
    with pytest.raises(SystemExit, match="no such folder"):
        filled(f"{ARCHITECTURE}<!-- modules of nowhere -->\n<!-- end of modules -->")


def test_a_summary_is_the_first_sentence_as_markdown(tmp_path: Path) -> None:
    """What follows the first sentence is not shown, and nothing in it is taken for markup."""
    module = tmp_path / "module.py"
    module.write_text('"""Keep ``a_b | c`` and a_b, e.g. these.\n\nOwns nothing.\n"""\n')
    assert summary(module) == r"Keep `a_b \| c` and a\_b, e.g. these."
    module.write_text('"""One\nsentence. Pure: no I/O."""\n')
    assert summary(module) == "One sentence."


def stories() -> dict[str, list[str]]:
    """Return the stories of ARCHITECTURE.md with the files that each one opens."""
    section = ARCHITECTURE.partition("\n## Three stories")[2].partition("\n## ")[0]
    found = {
        story.partition("\n")[0]: re.findall(r"^\d+\. `([\w/]+\.py)`", story, re.MULTILINE)
        for story in section.split("\n### ")[1:]
    }
    return {name: files for name, files in found.items() if files}


@pytest.mark.parametrize("story", stories())
def test_a_story_opens_few_files(story: str) -> None:
    """Each of the three stories can be followed through at most 15 files."""
    assert 5 <= len(stories()[story]) <= 15
    assert len(stories()) == 3


def test_the_files_that_the_architecture_names_exist() -> None:
    """Neither a story nor a chapter sends a reader to a file that is gone."""
    prose = re.sub(r"<!-- modules of .*?<!-- end of modules -->", "", ARCHITECTURE, flags=re.DOTALL)
    named = set(re.findall(r"`([\w/]+\.(?:py|toml|md))`", prose))
    beside = {path.name for path in SOURCES.rglob("*.py")}  # A chapter names its own modules without their folder.
    lost = [name for name in named if not (SOURCES / name).exists() and not (CHECKOUT / name).exists()]
    assert [name for name in lost if "/" in name or name not in beside] == []


def test_the_files_that_the_source_names_exist() -> None:
    """No docstring or comment sends a reader to a module that was renamed; a path to another project has a folder."""
    others = {"_functions.py", "security.py", "conftest.py"}  # Of Modal's SDK, of Airflow, and a user's own.
    files = {path.name for path in SOURCES.rglob("*.py")}
    named = {
        (path.name, name)
        for path in SOURCES.rglob("*.py")
        for name in re.findall(r"(?<![\w/*.<{-])([a-z_]+\.py)\b", path.read_text())
    }
    assert {(where, name) for where, name in named if name not in files | others} == set()


def test_the_folders_to_begin_a_change_in_exist() -> None:
    """The table of changes names chapters."""
    section = ARCHITECTURE.partition("| you want to change | begin in |")[2].partition("\n\n")[0]
    named = {name for line in section.splitlines() for name in re.findall(r"`([a-z_/]+)`", line.rpartition(" | ")[2])}
    assert named
    assert named - set(folders()) == set()


def rows(page: str, chapter: str) -> dict[str, list[str]]:
    """Return the rows of a chapter's tables by their first cell; of rows that begin alike, the first."""
    found: dict[str, list[str]] = {}
    for line in page.partition(f"\n# {chapter}\n")[2].partition("\n# ")[0].splitlines():
        if line.startswith("| "):
            name, *cells = [cell.strip() for cell in line.strip("|").split(" | ")]
            found.setdefault(name, cells)
    return found


def test_the_figures_of_the_readme_are_those_that_were_measured() -> None:
    """The three guarantees quote the last results of the benchmarks and of the fault tests."""
    benchmarks = (CHECKOUT / "benchmarks/README.md").read_text()
    readme = " ".join((CHECKOUT / "README.md").read_text().split())
    executor = rows(benchmarks, "What the executor costs")
    worker = rows(benchmarks, "What a task costs on the worker")
    median = float(executor["heartbeat with 10,000 running, p50 (ms)"][1])
    slowest = max(map(float, executor["the same, p99 (ms)"][1].split(", ")))
    assert f"a heartbeat takes {median:g} ms (median) and at most {slowest:g} ms (99th percentile)" in readme
    started = float(worker["12 no-op tasks in a row: queued to started, p50 (ms)"][1]) / 1000
    assert f"starts a task in {started:.2f} s" in readme
    _, ours, others, *_ = worker["the same: processor seconds a task, of the processes that run tasks"]
    assert f"{ours} processor seconds; with LocalExecutor, {others}" in readme
    faults = (CHECKOUT / "tests/chaos/README.md").read_text()
    for here, there in (("196 combinations passed", "All 196 cells passed"), ("2,000 tasks", "Soak, 2,000 tasks")):
        assert here in readme
        assert there in faults
    assert "doubled 0, lost 0" in faults


def test_the_figures_of_the_differences_are_those_of_the_code() -> None:
    """How the local control plane differs from Modal: its numbers are its constants."""
    page = " ".join((CHECKOUT / "docs/differs-from-modal.md").read_text().split())
    assert f"{MAX_WAITING:,} for `remote` and `map`, {MAX_SPAWNED_WAITING:,} for `spawn`" in page
    assert f"The newest {KEPT_VERSIONS} versions of an app" in page
    assert f"At most {Options().max_containers} run at the same time" in page
