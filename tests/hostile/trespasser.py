"""A program of a hostile container: it tries to reach what is not its own. Prints what came of each attempt."""

from __future__ import annotations

import json
import os
import socket
import sys
from urllib.parse import urlsplit

#: Seconds for an attempt at a server that may never answer.
PATIENCE = 3.0


def status(place: tuple[str, int], line: str, headers: list[str], body: str = "") -> str:
    """Send a request as it is written, without a library that corrects it; return the status of the answer."""
    length = [f"Content-Length: {len(body)}", "Content-Type: application/json"] if body else []
    text = "\r\n".join([f"{line} HTTP/1.1", "Host: airflow.example", "Connection: close", *headers, *length, "", body])
    with socket.create_connection(place, PATIENCE) as connection:
        connection.settimeout(60.0)
        connection.sendall(text.encode())
        with connection.makefile("rb") as answer:
            return answer.readline().decode().split(" ")[1]


def reached(place: tuple[str, int]) -> bool:
    """Whether a server of another host can be reached."""
    try:
        with socket.create_connection(place, PATIENCE):
            return True
    except OSError:
        return False


def main(requests: list[tuple[str, list[str], str]], hosts: list[tuple[str, int]]) -> None:
    """Try requests through the relay, and hosts without it."""
    url = urlsplit(os.environ["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"])
    place = (str(url.hostname), int(url.port or 80))
    found = {
        "statuses": [status(place, line, headers, body) for line, headers, body in requests],
        "hosts": [reached((host, port)) for host, port in hosts],
    }
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), json.loads(sys.argv[2]))
