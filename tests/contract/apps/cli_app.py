"""An app as somebody has it who tries Modal's command line. Runs in containers."""

import time

import modal

app = modal.App("cli")


@app.function()
def add(a: int, b: int = 2) -> int:
    print(f"adding {a} and {b}")
    return a + b


@app.function()
def wait(seconds: float) -> None:
    print("waiting")
    time.sleep(seconds)


@app.local_entrypoint()
def main(n: int = 3) -> None:
    print("the sum is", add.remote(n))
    print("and many are", list(add.map(range(3))))
