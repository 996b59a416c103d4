"""The options set on the host, beside a container's report on them: the differences, and whether on purpose.

Pure. A container's report is untrusted plain data, and any part of it may be missing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from modalflow.airflow_home.loopback import label
from modalflow.airflow_home.snapshot import HomeSnapshot
from modalflow.names import airflow_variable
from modalflow.protocol.probe import WantedOption, digest, shown
from modalflow.support.text import ID, LINE, one_line


class Verdict(StrEnum):
    """How a container's value relates to the host's."""

    SAME = "same"
    KEPT_ON_HOST = "kept on the host"
    """The table of options keeps it there; the reason is the table's."""
    OVERRIDDEN = "overridden"
    """Something above the host's settings sets it, as documented."""
    DIFFERENT = "different"
    """Not on purpose."""
    REFUSED = "refused"
    """The container's Airflow cannot read the value."""
    UNKNOWN_THERE = "unknown there"
    """The container's Airflow, of another version, has no such option."""


#: The origin of a value in a container's airflow.cfg (``airflow_compat.host_options.Source``).
_IN_FILE = "airflow.cfg"

#: A user has to act on these.
PROBLEMS = (Verdict.REFUSED, Verdict.DIFFERENT, Verdict.UNKNOWN_THERE)


@dataclass(frozen=True)
class ComparedOption:
    """An option set on the host."""

    section: str
    option: str
    value: str = field(repr=False)
    """Empty if it does not travel: such a value is not even read."""
    travels: bool
    secret: bool = False
    reason: str = ""
    """Why it does not travel."""
    place: str = ""
    """Where the table of options places it."""
    known: bool = False
    """Whether the host's Airflow or one of its providers describes it."""

    @property
    def name(self) -> str:
        """Return it as users write it."""
        return f"[{self.section}] {self.option}"

    @property
    def wanted(self) -> WantedOption:
        """Return the question to a container."""
        return WantedOption(self.section, self.option, self.secret)


@dataclass(frozen=True)
class Layers:
    """The names of the variables above the host's settings."""

    sent: Collection[str] = ()
    """The executor's own for every workload, with ``worker_env``."""
    profile: Collection[str] = ()
    """Those of the profile and the deployment."""
    image: Collection[str] = ()

    def of(self, section: str, option: str) -> str:
        """Return the layer with an option, in words; empty if there is none."""
        variable = airflow_variable(section, option)
        names = [variable, f"{variable}_CMD", f"{variable}_SECRET"]
        if any(name in self.profile for name in names):
            return f"the profile or the deployment sets {variable}"
        if any(name in self.sent for name in names):
            return f"[modal_executor] worker_env, or modalflow itself, sets {variable}"
        return f"the image sets {variable}" if any(name in self.image for name in names) else ""


@dataclass(frozen=True)
class Row:
    """One option on the host and in a container. Holds no secret."""

    section: str
    option: str
    verdict: Verdict
    place: str
    host: str | None
    """None if it does not travel."""
    container: str | None
    """None if it is not set there, or not reported."""
    reason: str = ""

    @property
    def name(self) -> str:
        """Return it as users write it."""
        return f"[{self.section}] {self.option}"

    def to_wire(self) -> dict[str, Any]:
        return asdict(self) | {"verdict": self.verdict.value}


def compare(options: Iterable[ComparedOption], seen: object, salt: str, layers: Layers) -> list[Row]:
    """Return a row for each option. ``seen`` is a container's answer to a question with this salt."""
    answers = {(str(each.get("section")), str(each.get("option"))): each for each in _mappings(seen)}
    return [_row(option, answers.get((option.section, option.option)), salt, layers) for option in options]


def changes(ours: HomeSnapshot, theirs: HomeSnapshot) -> list[str]:
    """Return the differences of two homes in words: options, files, and "secret settings" as a whole."""
    pairs = {
        (section, option)
        for settings in (ours.settings, theirs.settings)
        for section, options in settings.items()
        for option in options
    }
    found = [
        one_line(label(section, option), ID)
        for section, option in sorted(pairs)
        if ours.settings.get(section, {}).get(option) != theirs.settings.get(section, {}).get(option)
    ]
    if _sealed(ours) != _sealed(theirs):
        found.append("secret settings")
    files = ours.files.since(theirs.files)
    return found + [one_line(path, LINE) for path in (*files.added, *files.changed, *files.removed)]


def _sealed(home: HomeSnapshot) -> str:
    return "" if home.sealed is None else home.sealed.fingerprint


def counts(rows: Sequence[Row]) -> dict[Verdict, int]:
    """Return how many rows have each verdict, without zeros."""
    found = {verdict: sum(row.verdict is verdict for row in rows) for verdict in Verdict}
    return {verdict: number for verdict, number in found.items() if number}


def _row(option: ComparedOption, answer: Mapping[str, Any] | None, salt: str, layers: Layers) -> Row:
    verdict, reason = _verdict(option, answer or {}, salt, layers)
    there = (answer or {}).get("shown")
    return Row(
        one_line(option.section, ID),
        one_line(option.option, ID),
        verdict,
        option.place,
        shown(option.value, option.secret) if option.travels else None,
        None if there is None else shown(str(there), option.secret),
        one_line(reason, LINE),
    )


def _verdict(option: ComparedOption, answer: Mapping[str, Any], salt: str, layers: Layers) -> tuple[Verdict, str]:
    if not option.travels:
        return Verdict.KEPT_ON_HOST, option.reason
    if not answer:
        return Verdict.DIFFERENT, "the container did not report it"
    problem = str(answer.get("problem") or "")
    if problem:
        hidden = problem.replace(option.value, "***") if option.secret and option.value else problem
        return Verdict.REFUSED, hidden
    if answer.get("digest") == digest(option.value, salt):
        if option.known and answer.get("known") is False:
            return Verdict.UNKNOWN_THERE, "the container's Airflow has no such option"
        return Verdict.SAME, ""
    if above := layers.of(option.section, option.option):
        return Verdict.OVERRIDDEN, above
    if answer.get("origin") == _IN_FILE:
        return Verdict.OVERRIDDEN, "the airflow.cfg of the image sets it"
    return Verdict.DIFFERENT, "the container has Airflow's default"


def _mappings(seen: object) -> Iterator[Mapping[str, Any]]:
    for each in seen if isinstance(seen, list) else []:
        if isinstance(each, dict):
            yield each
