"""Functions that ask for cores, memory and GPUs."""

import os
import time

import modal

app = modal.App("resources")
held = modal.Dict.from_name("resources-held", create_if_missing=True)


def _wait_for(key: str) -> None:
    while held.get(key) is None:
        time.sleep(0.05)


@app.function(gpu="H100")
def hold_gpu(key: str) -> str:
    held[f"{key}-began"] = True
    _wait_for(key)
    return os.environ["CUDA_VISIBLE_DEVICES"]


@app.function(gpu=["B200", "T4"])
def any_of_two() -> str:
    return os.environ["CUDA_VISIBLE_DEVICES"]


@app.function(gpu="A100")
def without_a_gpu() -> str:
    return os.environ.get("CUDA_VISIBLE_DEVICES", "all")


@app.function(cpu=64.0)
def many_cores() -> str:
    return "ran"


@app.function(memory=(64, 160))
def allocate(mib: int) -> int:
    taken = bytearray()
    for _ in range(mib):
        taken += b"x" * 2**20
    time.sleep(2.0)
    return len(taken)


@app.function(memory=64)
def allocate_without_limit(mib: int) -> int:
    return len(b"x" * (mib * 2**20))
