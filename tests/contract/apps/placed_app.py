"""An app whose functions ask for what the local control plane accepts without effect."""

from __future__ import annotations

import modal

app = modal.App()


@app.function(i6pn=True, cloud="aws", region=["us-east", "eu"], cpu=(1.0, 2.0), experimental_options={"vroom": "1"})
def placed() -> None: ...


@app.function(timeout=60, memory=(128, 256))
def plain() -> None: ...


@app.cls(enable_memory_snapshot=True, routing_region="us-west")
class Placed:
    @modal.method()
    def method(self) -> None: ...
