"""An app whose functions tell what network they are in, and serve in it."""

from __future__ import annotations

import io
import socket
import threading
from typing import Any

import modal

app = modal.App()


@app.function()
def reaches(host: str, port: int) -> str:
    """Connect to an address; return the error's class, or nothing."""
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError as error:
        return type(error).__name__
    return ""


@app.function()
def interfaces() -> list[str]:
    """The network interfaces that are there."""
    return [name for _, name in socket.if_nameindex()]


@app.function()
def doubled(data: bytes) -> bytes:
    """A value, and a result, that are too large for an RPC."""
    return data + data


@app.function()
def copies(volume: Any, source: str, target: str) -> int:
    """Download a file of a Volume that is not mounted, and upload it under another name; return its size."""
    data = b"".join(volume.read_file(source))
    with volume.batch_upload() as batch:
        batch.put_file(io.BytesIO(data), target)
    return len(data)


@app.function(timeout=120)
def serves(queue: Any, greeting: bytes) -> list[str]:
    """Answer each line with the greeting and the line, through a tunnel, until something is put into the queue."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_accept, args=(listener, greeting), daemon=True).start()
        port = listener.getsockname()[1]
        refused = []
        with modal.forward(port, unencrypted=True) as tunnel:
            for number, unencrypted in ((port, True), (1, False)):
                try:
                    with modal.forward(number, unencrypted=unencrypted):
                        pass
                except Exception as error:  # noqa: BLE001 (the test checks which one it was)
                    refused.append(f"{type(error).__name__}: {error}")
            queue.put(tunnel.tcp_socket, partition="address")
            queue.get(timeout=100, partition="over")
    return refused


def _accept(listener: socket.socket, greeting: bytes) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_answer, args=(connection, greeting), daemon=True).start()


def _answer(connection: socket.socket, greeting: bytes) -> None:
    with connection, connection.makefile("rwb") as lines:
        for line in lines:
            lines.write(greeting + line)
            lines.flush()
