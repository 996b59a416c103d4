"""The e-mail backend of a replay, which sends nothing: the mails of a task's failures and retries are for real runs.

Airflow finds it by its path in ``[email] email_backend``.
"""

from __future__ import annotations

import logging

log = logging.getLogger(__name__)


def send_email(to: object, subject: object, *_: object, **__: object) -> None:
    """Log in place of sending. The arguments are those of ``airflow.utils.email.send_email``."""
    log.info("A replay sends no e-mail. To %s: %s", to, subject)
