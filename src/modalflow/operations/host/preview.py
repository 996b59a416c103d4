"""What a deployment's containers will have of this machine's Airflow, as far as it is known without a container.

Reads this machine's configuration and the deployment's list of packages. Imports nothing of the user's.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from modalflow.airflow_home.classes import COORDINATORS, classes_of, coordinators, package_of
from modalflow.airflow_home.comparison import ComparedOption
from modalflow.errors import ModalflowError
from modalflow.operations.host.host_configuration import HostConfiguration, host_configuration
from modalflow.operations.host.local_folders import ADVICE, unshared_folders
from modalflow.protocol.messages import Deployment
from modalflow.protocol.probe import shown
from modalflow.support.described import words_of
from modalflow.support.packages import canonical
from modalflow.support.text import LINE, one_line

#: Folders of an Airflow home whose modules Airflow can import.
_FOLDERS = ("plugins", "config", "modules")
_PROVIDER = "apache-airflow-providers"
#: The scheme of [logging] remote_base_log_folder → the provider of its log handler.
_LOG_PROVIDERS = {
    "cloudwatch": f"{_PROVIDER}-amazon",
    "gs": f"{_PROVIDER}-google",
    "hdfs": f"{_PROVIDER}-apache-hdfs",
    "oss": f"{_PROVIDER}-alibaba",
    "s3": f"{_PROVIDER}-amazon",
    "stackdriver": f"{_PROVIDER}-google",
    "wasb": f"{_PROVIDER}-microsoft-azure",
}
#: Named options and files of a list. The others are counted.
_NAMED = 12


@dataclass(frozen=True)
class Preview:
    """The comparison of this machine with the containers of a deployment."""

    options: Sequence[ComparedOption] = ()
    files: Sequence[str] = ()
    """The travelling files: paths in the Airflow home of containers."""
    warnings: Sequence[str] = ()

    def lines(self) -> Iterator[str]:
        """Yield lines for the user, without the warnings."""
        travelling = [option for option in self.options if option.travels]
        if not self.options and not self.files:
            return
        sealed = sum(option.secret for option in travelling)
        encrypted = f" ({sealed} of them encrypted)" if sealed else ""
        kept = [option for option in self.options if not option.travels]
        yield (
            f"Of this machine's Airflow, {len(travelling)} settings{encrypted} and {len(self.files)} files hold in "
            f"containers; {len(kept)} settings stay here."
        )
        if travelling:
            yield f"  They hold in containers: {_listed([option.name for option in travelling])}."
        if self.files:
            yield f"  Files: {_listed(self.files)}."
        if kept:
            yield f"  They stay here on purpose (--json has the reasons): {_listed([option.name for option in kept])}."

    def to_wire(self) -> dict[str, Any]:
        """Return it as JSON types, without secrets."""
        return {"options": [_as_row(option) for option in self.options], "files": list(self.files)} | {
            "warnings": list(self.warnings)
        }


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"


def preview(
    conf: Any, packages: Collection[str], *, knows_image: bool, has_key: bool, after: Deployment | None = None
) -> Preview:
    """Return the preview for a deployment with these packages. ``after`` is its record.

    Without ``knows_image``, every profile has an image of its own, with unknown packages. ``has_key`` says whether the
    app has a key for secret settings already.
    """
    try:
        host = host_configuration(conf)
    except (ModalflowError, OSError) as error:
        return Preview(
            warnings=[f"Airflow's settings cannot be published, and no scheduler can start: {words_of(error)}"]
        )
    files = sorted(host.home.contents)
    warnings = [*host.unreadable]
    if knows_image:
        warnings += [*_classes(host, files, packages), *_log_handler(conf, packages)]
    warnings += _coordinators(host)
    if after is not None:
        warnings += [f"{problem}. {ADVICE}" for problem in unshared_folders(host.home.settings, after)]
    if host.home.secret and not has_key:
        secret = len(host.home.left_out(""))
        settings = "secret setting travels" if secret == 1 else "secret settings travel"
        warnings.append(
            f"{secret} {settings} encrypted, with a key that this deployment makes: restart the scheduler after it."
        )
    return Preview(host.options, files, [one_line(warning, LINE) for warning in warnings])


def lacking(path: str, packages: Collection[str], files: Collection[str]) -> str:
    """Return why containers cannot import a class; empty if they can, as far as this machine knows.

    ``packages`` are those of the image, ``files`` the paths in the Airflow home of containers.
    """
    top, *others = path.split(".")
    if top in sys.stdlib_module_names or top == "modalflow":
        return ""
    if top == "airflow":
        return _lacking_provider(others, packages)
    if any(f"{folder}/{top}.py" in files or _has_folder(f"{folder}/{top}/", files) for folder in _FOLDERS):
        return ""
    owners = [canonical(name) for name in metadata.packages_distributions().get(top, ())]
    if not owners:
        return f"module {top} is in no package of this environment and in no file that travels"
    return "" if set(owners) & set(packages) else f"the image lacks the package {owners[0]}"


def _lacking_provider(parts: Sequence[str], packages: Collection[str]) -> str:
    if parts[:1] != ["providers"]:
        return ""
    names = ["-".join([_PROVIDER, *parts[1:end]]) for end in range(len(parts), 1, -1)]
    return "" if set(names) & set(packages) else f"the image lacks the provider {names[-1]}"


def _has_folder(prefix: str, files: Collection[str]) -> bool:
    return any(file.startswith(prefix) for file in files)


def _classes(host: HostConfiguration, files: Collection[str], packages: Collection[str]) -> Iterator[str]:
    for option in host.options:
        package = package_of(option.section, option.option, option.value) if option.travels else ""
        if package and package not in packages:
            yield f"{option.name} needs the package {package}, which the image lacks. Install it here and in the image."
        for path in classes_of(option.section, option.option, option.value) if option.travels else ():
            if problem := lacking(path, packages, files):
                yield (
                    f"{option.name} is {path}, and containers cannot import it: {problem}. Install it here and in the "
                    "image, or put the module into the plugins folder."
                )


def _log_handler(conf: Any, packages: Collection[str]) -> Iterator[str]:
    if not conf.getboolean("logging", "remote_logging", fallback=False):
        return
    folder = str(conf.get("logging", "remote_base_log_folder", fallback="") or "")
    provider = _LOG_PROVIDERS.get(folder.partition("://")[0].lower(), "")
    if provider and provider not in packages:
        yield (
            f"[logging] remote_base_log_folder is {shown(folder, False)}, and the image lacks the provider {provider}: "
            "nothing would upload the logs of tasks. Install it here and in the image."
        )


def _coordinators(host: HostConfiguration) -> Iterator[str]:
    for option in host.options:
        if (option.section, option.option) == COORDINATORS and (found := coordinators(option.value)):
            yield (
                f"{option.name} has {', '.join(found)}: the image needs the programs and files that they name, which "
                "modalflow does not add."
            )


def _as_row(option: ComparedOption) -> Mapping[str, Any]:
    return {
        "section": option.section,
        "option": option.option,
        "place": option.place,
        "host": shown(option.value, option.secret) if option.travels else None,
        "reason": option.reason,
    }
