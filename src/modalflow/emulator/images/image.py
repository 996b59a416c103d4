"""One image: its layer, the sum of all layers below, and its record in the journal.

Owns the state of an image. The set of images and their creation belong to images.py.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modal_proto import api_pb2

from modalflow.emulator.images.builder import Build, BuildResult
from modalflow.emulator.images.dockerfile.run_command import SHELL
from modalflow.emulator.images.recipe import ImageSettings
from modalflow.emulator.rpc.wire import message
from modalflow.emulator.services.environments import IMAGE_BUILDER_VERSION

#: Lines of a build's log kept with the state: the first ones show the steps, the last ones the result.
KEPT_LINES = 2_000


@dataclass(eq=False)
class Image:
    """One layer, with the totals of the layers below."""

    image_id: str
    identity: str
    """A hash of everything the layer and those below are made from."""
    settings: ImageSettings = field(default_factory=ImageSettings)
    made: BuildResult = field(default_factory=BuildResult)
    bases: tuple[str, ...] = ()
    builder_version: str = IMAGE_BUILDER_VERSION
    packages: Mapping[str, str] = field(default_factory=dict)
    build: Build = field(default_factory=Build)

    @property
    def variables(self) -> Mapping[str, str]:
        return self.settings.variables

    @property
    def workdir(self) -> str:
        return self.settings.workdir

    @property
    def metadata(self) -> api_pb2.ImageMetadata:
        return message(
            api_pb2.ImageMetadata,
            image_builder_version=self.builder_version,
            python_version_info=f"Python {self.made.series or platform.python_version()}",
            python_packages=self.packages,
            workdir=self.workdir or None,
        )


def encode(image: Image) -> dict[str, Any]:
    """Return the part of an image kept on disk."""
    build = image.build
    return {
        "identity": image.identity,
        "variables": dict(image.variables),
        "workdir": image.workdir,
        "base": image.settings.base,
        "missing": list(image.settings.missing),
        "files": image.made.files,
        "python": image.made.python,
        "layers": list(image.made.layers),
        "has_environment": image.made.has_environment,
        "program": image.made.program,
        "series": image.made.series,
        "shell": list(image.settings.shell),
        "user": image.settings.user,
        "bases": list(image.bases),
        "builder_version": image.builder_version,
        "packages": dict(image.packages),
        "started_at": build.started_at,
        "finished_at": build.finished_at,
        "result": b"" if build.result is None else build.result.SerializeToString(),
        "lines": [line.SerializeToString() for line in build.lines[:KEPT_LINES]] if build.result is not None else [],
    }


def decode(image_id: str, record: Mapping[str, Any]) -> Image:
    """Return the image of a record; an unfinished build becomes a failed one."""
    build = Build(
        lines=[api_pb2.TaskLogs.FromString(line) for line in record["lines"]],
        started_at=record["started_at"],
        finished_at=record["finished_at"],
    )
    if record["result"]:
        build.result = api_pb2.GenericResult.FromString(record["result"])
    else:
        reason = "the local control plane ended while the image was being built; build it again"
        build.end(api_pb2.GenericResult.GENERIC_STATUS_TERMINATED, reason)
    variables = dict(record["variables"])
    if "missing" not in record and "PATH" in variables:
        # Version 0.4 left $PATH in it, to be replaced in each container.
        variables["PATH"] = variables["PATH"].replace("$PATH", os.environ.get("PATH", os.defpath))
    return Image(
        image_id=image_id,
        identity=record["identity"],
        settings=ImageSettings(
            variables,
            record["workdir"],
            record["base"],
            tuple(record.get("missing", ())),
            tuple(record.get("shell", SHELL)),
            record.get("user", ""),
        ),
        made=BuildResult(
            record["files"],
            record["python"],
            tuple(record.get("layers", ())),
            record.get("has_environment", False),
            record.get("program", ""),
            record.get("series", ""),
        ),
        bases=tuple(record["bases"]),
        builder_version=record["builder_version"],
        packages=record["packages"],
        build=build,
    )
