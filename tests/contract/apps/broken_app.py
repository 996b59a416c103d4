"""An app that imports where it is deployed and not where it runs."""

import os

import modal

app = modal.App("broken")

if os.environ.get("MODAL_IS_REMOTE") == "1":
    raise ImportError("no such luck")


@app.function()
def never() -> None:
    pass
