"""Functions that use a Volume the way user code does. One container each, because each function has its own."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import modal

app = modal.App()
# In a container the volume is found by its id, whatever name this line makes up there.
volume = modal.Volume.from_name(
    os.environ.get("TEST_VOLUME", "unnamed"),
    create_if_missing=True,
    version=int(os.environ.get("TEST_VOLUME_VERSION", "2")),
)
MOUNT = "/vol/data"
inner = modal.Volume.from_name(f"{os.environ.get('TEST_VOLUME', 'unnamed')}-inner", create_if_missing=True)


@app.function(volumes={MOUNT: volume})
def write(path: str, content: str, commit: bool) -> str:
    target = Path(MOUNT, path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(content)
    if commit:
        volume.commit()
    return os.environ["MODAL_TASK_ID"]


@app.function(volumes={MOUNT: volume})
def write_bytes(path: str, size: int, commit: bool) -> str:
    Path(MOUNT, path).write_bytes(b"x" * size)
    if commit:
        volume.commit()
    return os.environ["MODAL_TASK_ID"]


@app.function(volumes={MOUNT: volume})
def link(targets: dict[str, str]) -> None:
    for path, target in targets.items():
        Path(MOUNT, path).symlink_to(target)
    volume.commit()


@app.function(volumes={MOUNT: volume})
def read(path: str, reload: bool) -> str | None:
    if reload:
        volume.reload()
    target = Path(MOUNT, path)
    return target.read_text() if target.exists() else None


@app.function(volumes={MOUNT: volume})
def reload_with_an_open_file(path: str) -> str:
    volume.reload()
    with Path(MOUNT, path).open():
        try:
            volume.reload()
        except RuntimeError as error:
            return str(error)
    return ""


@app.function(volumes={MOUNT: volume})
def append(path: str, lines: int, seconds: float) -> None:
    """Write a log as a worker does: one line, one commit, and on."""
    with Path(MOUNT, path).open("a") as log:
        for n in range(lines):
            log.write(f"{n}\n")
            log.flush()
            volume.commit()
            time.sleep(seconds)


@app.function(volumes={MOUNT: volume})
def touch(path: str, mtime: int, mode: int) -> None:
    """Change nothing but a file's time, and the mode of the folder that it is in."""
    os.utime(Path(MOUNT, path), (mtime, mtime))
    Path(MOUNT, path).parent.chmod(mode)


@app.function(volumes={MOUNT: volume}, single_use_containers=True)
def status(path: str) -> tuple[int, int, int, int]:
    """Return a file's time, size and blocks on disk, and the mode of its folder."""
    found, above = Path(MOUNT, path).stat(), Path(MOUNT, path).parent.stat()
    return int(found.st_mtime), found.st_size, found.st_blocks, stat.S_IMODE(above.st_mode)


@app.function(volumes={MOUNT: volume})
def write_sparse(path: str, size: int) -> None:
    with Path(MOUNT, path).open("wb") as file:
        file.truncate(size)
    volume.commit()


@app.function(volumes={MOUNT: volume, f"{MOUNT}/nested/here": inner}, single_use_containers=True)
def outer_first(name: str) -> list[str]:
    return _write_both(name)


@app.function(volumes={f"{MOUNT}/nested/here": inner, MOUNT: volume}, single_use_containers=True)
def inner_first(name: str) -> list[str]:
    return _write_both(name)


def _write_both(name: str) -> list[str]:
    Path(MOUNT, name).write_text("outer")
    Path(MOUNT, "nested", "here", name).write_text("inner")
    return sorted(path.name for path in Path(MOUNT, "nested", "here").iterdir())


@app.function(volumes={MOUNT: volume}, single_use_containers=True)
def write_and_end(path: str, content: str) -> None:
    Path(MOUNT, path).write_text(content)


@app.function(volumes={MOUNT: volume.read_only()})
def write_although_read_only(path: str) -> str:
    try:
        Path(MOUNT, path).write_text("x")
    except OSError as error:
        return type(error).__name__ + " " + str(error)
    return ""


if hasattr(volume, "with_mount_options"):
    part = volume.with_mount_options(sub_path="/below/it")

    @app.function(volumes={MOUNT: part})
    def write_below(path: str, content: str) -> list[str]:
        """Write a file into a mounted part of the volume; return what is in that part."""
        Path(MOUNT, path).write_text(content)
        part.commit()
        return sorted(str(each.relative_to(MOUNT)) for each in Path(MOUNT).rglob("*"))
