"""From a request to its Function, with the options and the grants there.

No I/O, and the clock is given. A named queue never silently means `default`: a task for a GPU would run without one,
and a mistyped profile would go unnoticed.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from modalflow.config import values
from modalflow.config.mounts import Reserved, conflict
from modalflow.config.task_options import PLACE
from modalflow.errors import WorkloadRejectedError
from modalflow.executor.mailbox import Adoption, SubmitRequest
from modalflow.executor.submission.resources import Resources
from modalflow.executor.submission.sizing import (
    NOTHING_KNOWN,
    Known,
    Sized,
    Terms,
    fallback,
    has_terms,
    sized,
    terms_of,
    without_terms,
)
from modalflow.names import DEFAULT_PROFILE
from modalflow.protocol.messages import Deployment

#: In the option `queues`: every queue that is not named there and has no profile.
ANY_OTHER = "*"

#: Seconds for which a set of options counts after it was last asked for: its containers are gone by then.
COUNTS_FOR = 3600.0

#: How many sets of options an error names.
_NAMED = 3

#: Options outside of resources: they describe a container, not its cost.
NOT_GRANTED = frozenset({"secrets", "volumes"})

#: Remembered places, so submissions share their grants.
_KEPT = 1000


class TooManySetsError(WorkloadRejectedError):
    """A task asks for one set of options more than its profile may have."""


class UnknownProfileError(WorkloadRejectedError):
    """A task asks for a profile that is not deployed, as far as is known."""


@dataclass(frozen=True)
class Place:
    """The Function for a task, and its terms."""

    profile: str
    options: Resources
    """What the task asks for beyond its profile."""
    granted: Mapping[str, Any]
    """As in ``Submission.resources``."""
    warning: str = ""
    """A doubt that the user should know of."""
    note: str = ""
    """What has grown since an earlier try, for the task's log."""
    sized: Mapping[str, int] = field(default_factory=dict)
    """As in ``Submission.sized``."""


class Placement:
    """Places requests on what is deployed."""

    def __init__(self, routing: Routing, option_sets: OptionSets, task_timeout: float = values.LONGEST_TIMEOUT) -> None:
        self._routing = routing
        self._option_sets = option_sets
        self._task_timeout = task_timeout
        self._known: dict[tuple[str, Resources], Place] = {}
        self._deployment: Deployment | None = None
        self._with_terms: frozenset[str] = frozenset()

    def terms(self, request: SubmitRequest, deployment: Deployment | None) -> Terms | None:
        """Return how the size of a request is decided; None if it has a fixed size.

        Raises WorkloadRejectedError if it has no profile, or contradicts its profile.
        """
        profile = self._routing.profile_of(request.profile, request.airflow_queue, profiles_of(deployment))
        self._follow(deployment)
        wanted = request.resources.options
        if not (request.terms.options or profile in self._with_terms or (wanted and has_terms(dict(wanted)))):
            return None
        of_profile = deployment.granted.get(profile, {}) if deployment is not None else {}
        return terms_of(of_profile, request.resources, request.terms, self._task_timeout)

    def place(
        self,
        request: SubmitRequest,
        deployment: Deployment | None,
        terms: Terms | None = None,
        known: Known = NOTHING_KNOWN,
    ) -> Place:
        """Return the place of a request; raise WorkloadRejectedError if there is none.

        ``terms`` are those of ``terms``, and ``known`` is what they need.
        """
        self._follow(deployment)
        profile = self._profile_of(request, deployment)
        if terms is None:
            return self._admitted(profile, request.resources, deployment)
        size = sized(terms, request.resources, known)
        try:
            place = self._admitted(profile, size.resources, deployment)
        except TooManySetsError as error:
            return self._admitted_otherwise(profile, terms, request.resources, size, deployment, error)
        return replace(place, note=size.note, sized=size.runs)

    def _follow(self, deployment: Deployment | None) -> None:
        """Forget what was known of another deployment."""
        if deployment is self._deployment:
            return
        self._deployment = deployment
        self._known.clear()
        granted = deployment.granted if deployment is not None else {}
        self._with_terms = frozenset(profile for profile, options in granted.items() if has_terms(options))

    def _admitted(self, profile: str, resources: Resources, deployment: Deployment | None) -> Place:
        key = (profile, resources)
        place = self._known.get(key)
        if place is None:
            place = _place(profile, resources, deployment)
        self._option_sets.admit(profile, place.options)
        if len(self._known) > _KEPT:
            self._known.clear()
        self._known[key] = place
        return place

    def place_of_adopted(self, adoption: Adoption, deployment: Deployment | None) -> Place | None:
        """Return where adopted work runs, if that can still be found out. It counts for no set of options."""
        try:
            return _place(self._profile_of(adoption, deployment), adoption.resources, deployment)
        except WorkloadRejectedError:
            return None

    def _profile_of(self, request: SubmitRequest | Adoption, deployment: Deployment | None) -> str:
        return self._routing.profile_of(request.profile, request.airflow_queue, profiles_of(deployment))

    def _admitted_otherwise(
        self,
        profile: str,
        terms: Terms,
        wanted: Resources,
        size: Sized,
        deployment: Deployment | None,
        error: TooManySetsError,
    ) -> Place:
        """Return the place of a task whose own size would be one set of options too many: a larger set of others.

        Without one, a task that sizes itself has the size of its profile, and another one is rejected.
        """
        place = _place(profile, size.resources, deployment)
        if (larger := self._option_sets.larger(profile, place.options)) is not None:
            return replace(self._admitted(profile, larger, deployment), note=size.note, sized=size.runs)
        if size.note or not terms.needs_history:
            raise error
        place = self._admitted(profile, fallback(terms, wanted), deployment)
        doubt = f"The task could not be sized by its last runs, and has the size of its profile. {error}"
        return replace(place, warning=" ".join(filter(None, (place.warning, doubt))))


def profiles_of(deployment: Deployment | None) -> Sequence[str]:
    """Return the profiles of a deployment."""
    return deployment.profiles if deployment is not None else (DEFAULT_PROFILE,)


def _place(profile: str, wanted: Resources, deployment: Deployment | None) -> Place:
    of_profile = without_terms(deployment.granted.get(profile, {})) if deployment is not None else {}
    options = wanted.beyond(of_profile)
    if deployment is not None:
        _check_volumes(options.plain().get("volumes") or {}, deployment)
    own = {name: value for name, value in options.plain().items() if name not in NOT_GRANTED}
    granted = {**of_profile, **own}
    if options.unshared:
        granted["concurrency"] = 1
    return Place(profile, options, granted, values.unknown_gpu(own.get("gpu")))


def _check_volumes(wanted: Mapping[str, str], deployment: Deployment) -> None:
    """Reject a Volume over this deployment's own mounts, for any version of the deployment."""
    own = [
        Reserved(path, f"the deployed worker has Volume {name!r} there") for path, name in deployment.volumes.items()
    ]
    folders = [folder for folder in deployment.bundles.values() if folder.startswith("/")]
    own += [Reserved(folder, "the deployed worker has DAG files there") for folder in folders]
    for path, name in wanted.items():
        problem = conflict(path, own)
        if name in deployment.volumes.values():
            problem = f"Volume {name!r} is modalflow's own, and Modal mounts no Volume twice"
        if problem:
            raise WorkloadRejectedError(
                f"{PLACE}['volumes'] mounts {name!r} at {path!r}: {problem}. Mount another Volume, or use another path"
            )


@dataclass(frozen=True)
class Routing:
    """From an Airflow queue, or the profile that a task names, to a deployed profile."""

    queues: Mapping[str, str] = field(default_factory=dict)
    """[modal_executor] queues: queue → profile."""
    default_queue: str = DEFAULT_PROFILE
    """Airflow's default queue, for tasks without a named queue."""

    def profile_of(self, profile: str | None, queue: str | None, deployed: Collection[str]) -> str:
        """Return the profile; raise UnknownProfileError, naming those that are deployed, if it is not."""
        if profile is not None:
            return _deployed_or_raise(profile, deployed, f"Profile {profile!r} is not deployed")
        queue = queue or self.default_queue
        if queue in self.queues:
            return self._routed(queue, self.queues[queue], deployed)
        if queue in deployed:
            return queue
        if queue in (self.default_queue, DEFAULT_PROFILE):
            return DEFAULT_PROFILE
        if ANY_OTHER in self.queues:
            return self._routed(queue, self.queues[ANY_OTHER], deployed)
        raise UnknownProfileError(
            f"Queue {queue!r} has no profile; {_list(deployed)}. Deploy a profile of that name, correct the task's "
            f'`queue`, or route it: [modal_executor] queues = {{"{queue}": "{DEFAULT_PROFILE}"}}'
        )

    @staticmethod
    def _routed(queue: str, profile: str, deployed: Collection[str]) -> str:
        what = f"[modal_executor] queues sends queue {queue!r} to profile {profile!r}"
        return _deployed_or_raise(profile, deployed, what)


def _deployed_or_raise(profile: str, deployed: Collection[str], otherwise: str) -> str:
    if profile not in deployed:
        raise UnknownProfileError(f"{otherwise}; {_list(deployed)}. Deploy it, or name another one")
    return profile


def _list(deployed: Collection[str]) -> str:
    return f"deployed profiles: {', '.join(deployed)}"


_Amounts: TypeAlias = dict[str, tuple[float, float]]


def _amounts(options: Resources) -> tuple[_Amounts, dict[str, Hashable]]:
    """Return the requests and limits of memory and cores in a set of options, and the other options."""
    others: dict[str, Any] = dict(options.options)
    found = {name: others.pop(name) for name in ("memory", "cpu") if name in others}
    return {name: value if isinstance(value, tuple) else (value, math.inf) for name, value in found.items()}, others


def _fits(candidate: Resources, asked: _Amounts, others: dict[str, Hashable]) -> bool:
    has, rest = _amounts(candidate)
    if rest != others or has.keys() != asked.keys():
        return False
    return all(mine >= wanted for name in has for mine, wanted in zip(has[name], asked[name], strict=True))


@dataclass
class _Use:
    times: int
    last_at: float


class OptionSets:
    """The different sets of options that tasks asked for in the last hour, by profile. A limit of 0 is none.

    Each distinct set is a separate container pool on Modal. It starts cold and costs money while it idles. Computed
    options, such as memory by the size of a file, make a pool of every task, and this is hardly ever intended.
    """

    def __init__(self, limit: int, clock: Callable[[], float]) -> None:
        self._limit = limit
        self._clock = clock
        self._uses: defaultdict[str, dict[Resources, _Use]] = defaultdict(dict)

    def admit(self, profile: str, options: Resources) -> None:
        """Count a task with these options; raise WorkloadRejectedError if that would be one set too many."""
        if not options.options or not self._limit:
            return
        uses, now = self._uses[profile], self._clock()
        known = uses.get(options)
        if known is not None:
            known.times += 1
            known.last_at = now
            return
        if len(uses) >= self._limit:
            for old in [each for each, use in uses.items() if now - use.last_at > COUNTS_FOR]:
                del uses[old]
        if len(uses) >= self._limit:
            raise TooManySetsError(self._reason(profile, options, uses))
        uses[options] = _Use(1, now)

    def larger(self, profile: str, options: Resources) -> Resources | None:
        """Return the smallest set in use with at least this memory and these cores, and otherwise the same."""
        asked, others = _amounts(options)
        fitting = [each for each in self._uses[profile] if _fits(each, asked, others)]
        return min(fitting, key=lambda each: list(_amounts(each)[0].values()), default=None)

    def _reason(self, profile: str, options: Resources, uses: dict[Resources, _Use]) -> str:
        most_used = sorted(uses.items(), key=lambda item: -item[1].times)[:_NAMED]
        listed = "; ".join(f"{each} ({use.times} times)" for each, use in most_used)
        return (
            f"The tasks of profile {profile!r} have asked for {len(uses)} different sets of options within the last "
            f"hour, and each is a container pool of its own that starts cold. This task's ({options}) would be one "
            f"more than [modal_executor] max_option_sets = {self._limit} allows. Most used: {listed}. Round computed "
            "values, deploy a profile with what such tasks need, or raise that setting"
        )
