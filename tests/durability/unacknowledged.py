"""What the SDK raises where it got no answer, even after its own retries."""

from __future__ import annotations

import aiohttp
import modal
from grpclib.exceptions import StreamTerminatedError
from h2.exceptions import ProtocolError

#: Candidates: an AttributeError is one only if ``is_lost_connection`` agrees.
UNACKNOWLEDGED = (
    modal.exception.ConnectionError,
    StreamTerminatedError,
    ProtocolError,
    aiohttp.ClientError,
    OSError,
    AttributeError,
)


def is_lost_connection(error: BaseException) -> bool:
    """Return whether the error means a lost connection.

    grpclib takes a connection apart while a call still uses it: "'Connection' object has no attribute '_transport'".
    Any other missing attribute is a finding.
    """
    if isinstance(error, AttributeError):
        return "'Connection' object" in str(error)
    return isinstance(error, UNACKNOWLEDGED)
