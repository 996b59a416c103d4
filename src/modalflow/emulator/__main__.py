"""``python -m modalflow.emulator``: a control plane in a process of its own.

It prints one line of JSON when it is ready. It ends on SIGTERM, on SIGINT and, with --with-parent, with its parent. If
the state folder or the port cannot be used, it prints one line on stderr and ends with the exit code UNUSABLE.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import signal
import stat
import sys

from modalflow.emulator import listening
from modalflow.emulator.control_plane.control_plane import ControlPlane, IsolationError, ListenError, NetworkError
from modalflow.emulator.images.building.root_below import BaseError
from modalflow.emulator.local import NO_NETWORK, UNUSABLE
from modalflow.emulator.options import Options
from modalflow.emulator.state import disk_space
from modalflow.emulator.state.journal import StateError

#: New objects before the garbage collector searches for cycles: each call makes hundreds, and few are part of one.
GARBAGE_THRESHOLD = 20_000

#: Seconds between two checks for the parent.
PARENT_CHECK_SECONDS = 0.5


async def serve(options: Options) -> None:
    """Run a control plane until a signal, or until the end of the parent."""
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    parent = os.getppid()
    control_plane = ControlPlane(options)
    credentials = control_plane.parts.base.credentials
    try:
        await control_plane.start()
        # These objects stay: the collector can skip them.
        gc.freeze()
        gc.set_threshold(GARBAGE_THRESHOLD)
        ready = {
            "url": control_plane.url,
            "token_id": credentials.token_id,
            "token_secret": credentials.token_secret,
            "pid": os.getpid(),
            "state_dir": str(control_plane.state.root),
            "control_url": control_plane.parts.base.addresses.url,
        }
        sys.stdout.write(json.dumps(ready) + "\n")
        sys.stdout.flush()
        if options.with_parent and stat.S_ISFIFO(os.fstat(0).st_mode):
            # The parent holds the other end of this pipe and never writes: it becomes readable when the parent is gone.
            loop.add_reader(0, over.set)
        while not over.is_set():
            if options.with_parent and os.getppid() != parent:
                break
            try:
                await asyncio.wait_for(over.wait(), PARENT_CHECK_SECONDS)
            except TimeoutError:
                continue
    finally:
        await control_plane.close()


def main() -> None:
    options = Options.from_argv(sys.argv[1:])
    logging.basicConfig(
        level=options.log_level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    if warning := listening.warning(options.host):
        logging.getLogger(__name__).warning("%s", warning)
    try:
        asyncio.run(serve(options))
    except (StateError, ListenError, NetworkError, IsolationError, BaseError) as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(NO_NETWORK if isinstance(error, NetworkError) else UNUSABLE)
    except OSError as error:
        if not disk_space.unwritable(error):
            raise
        sys.stderr.write(f"the state folder cannot be used: {error}; free some space there\n")
        sys.exit(UNUSABLE)


if __name__ == "__main__":
    main()
