"""Several writers put files on one Volume; each commits what it wrote, and a reader sees all of it.

modal run examples/modal/shared_volume.py
"""

import pathlib

import modal

app = modal.App("example-shared-volume")
volume = modal.Volume.from_name("example-shared-volume", create_if_missing=True, version=2)
SHARED = pathlib.Path("/shared")


@app.function(volumes={SHARED: volume})
def write(writer: int) -> str:
    path = SHARED / "parts" / f"{writer}.txt"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"written by {writer}\n")
    # Others see it from here on; without this, when the container ends at the latest.
    volume.commit()
    return path.name


@app.function(volumes={SHARED: volume})
def read() -> str:
    # What was committed since this container started.
    volume.reload()
    return "".join(path.read_text() for path in sorted((SHARED / "parts").iterdir()))


@app.local_entrypoint()
def main(writers: int = 4) -> None:
    print("Written:", *write.map(range(writers)))
    print(read.remote(), end="")
    # The same from outside, without a container.
    print("On the Volume:", *sorted(entry.path for entry in volume.listdir("/parts")))
