"""Cloud buckets as folders: the content of a CloudBucketMount in a container.

Owns the folder of each bucket, and the part of it that a mount shows. A bucket without a folder of the user has one in
the state folder. All containers see the same files at once, as with S3.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from grpclib import GRPCError, Status
from modal_proto import api_pb2

from modalflow.emulator.volumes.views import safe_paths

#: The names that S3, R2 and GCS accept, and similar ones; no name leads out of the folder.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,254}")


def check_mount(mount: api_pb2.CloudBucketMount) -> None:
    """Raise INVALID_ARGUMENT for a mount without a bucket, or with a prefix that leads out of it."""
    if not _NAME.fullmatch(mount.bucket_name):
        raise GRPCError(
            Status.INVALID_ARGUMENT,
            f"bucket_name is {mount.bucket_name!r}; expected letters, digits, '.', '_' and '-', not an ARN or a URL",
        )
    if not mount.mount_path.strip("/"):
        raise GRPCError(Status.INVALID_ARGUMENT, f"bucket {mount.bucket_name!r} needs a mount path other than '/'")
    if "\0" in mount.key_prefix or {".", ".."} & set(mount.key_prefix.split("/")):
        raise GRPCError(
            Status.INVALID_ARGUMENT, f"key_prefix is {mount.key_prefix!r}; here '.' and '..' cannot be parts of it"
        )


def parse(given: Sequence[str]) -> dict[str, Path]:
    """Read ``NAME=FOLDER`` pairs; ValueError for anything else, or a missing folder."""
    buckets: dict[str, Path] = {}
    for pair in given:
        name, equals, folder = pair.partition("=")
        if not equals or not _NAME.fullmatch(name) or not folder:
            raise ValueError(f"bucket is {pair!r}; expected NAME=FOLDER, e.g. training-data=/srv/data")
        if not Path(folder).is_dir():
            raise ValueError(f"bucket {name!r}: {folder!r} is not a folder; create it first")
        buckets[name] = Path(folder).resolve()
    return buckets


class CloudBuckets:
    """The folders of all buckets."""

    def __init__(self, root: Path, given: Mapping[str, Path]) -> None:
        """``given`` are the folders of some buckets; any other bucket is a folder of its name in ``root``."""
        self._root, self._given = root, given
        self._points: Counter[Path] = Counter()

    def folder(self, mount: api_pb2.CloudBucketMount) -> Path:
        """Return the folder that the mount shows; make a missing one: a prefix without objects is no error."""
        check_mount(mount)
        bucket = self._given.get(mount.bucket_name, self._root / mount.bucket_name)
        folder = bucket / mount.key_prefix.strip("/")
        folder.mkdir(parents=True, exist_ok=True)
        if not folder.resolve().is_relative_to(bucket.resolve()):
            raise GRPCError(
                Status.INVALID_ARGUMENT,
                f"{mount.key_prefix!r} in bucket {mount.bucket_name!r} is a link that leads out of the bucket's folder",
            )
        return folder.resolve()

    @contextlib.contextmanager
    def with_points(self, folder: Path, points: Iterable[str]) -> Iterator[None]:
        """Make folders in a bucket's folder as mount points for a container: a bucket itself has no folders.

        They are removed with the last container that uses them, unless they hold something.
        """
        held: list[Path] = []
        try:
            for point in points:
                for depth in range(1, len(PurePosixPath(point).parts) + 1):
                    made = _inside(folder, PurePosixPath(*PurePosixPath(point).parts[:depth]))
                    if self._points[made] or not os.path.lexists(made):
                        _make(folder, made)
                        self._points[made] += 1
                        held.append(made)
            yield
        finally:
            self._points.subtract(held)
            for made in reversed(held):
                if self._points[made] <= 0:
                    del self._points[made]
                    _remove(folder, made)


def _inside(folder: Path, point: PurePosixPath) -> Path:
    """Return the path of a point with the links above it followed; FAILED_PRECONDITION if it is not in the bucket."""
    made = (folder / point).parent.resolve() / point.name
    if not made.is_relative_to(folder):
        raise GRPCError(
            Status.FAILED_PRECONDITION,
            f"{str(point)!r} in the bucket's folder {folder} is behind a link that leads out of it, so nothing can be "
            "mounted there",
        )
    return made


def _make(folder: Path, made: Path) -> None:
    # Not through a link: a container with the bucket may put one there at this moment.
    with (
        safe_paths.holder(folder, str(made.relative_to(folder))) as (name, above),
        contextlib.suppress(FileExistsError),
    ):
        os.mkdir(name, dir_fd=above)


def _remove(folder: Path, made: Path) -> None:
    with contextlib.suppress(OSError), safe_paths.holder(folder, str(made.relative_to(folder))) as (name, above):
        is_link = stat.S_ISLNK(os.stat(name, dir_fd=above, follow_symlinks=False).st_mode)
        # A container without namespaces has a link there.
        (os.unlink if is_link else os.rmdir)(name, dir_fd=above)
