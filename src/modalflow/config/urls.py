"""URLs in settings: checked, and shown without passwords."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

from modalflow.errors import ConfigError


def execution_api_url(place: str, raw: str) -> str:
    """Check a URL of Airflow's Execution API. An empty text stays empty: none is set."""
    url = raw.strip()
    if not url:
        return ""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(
            place,
            raw,
            "a URL with scheme and host within reach of containers, e.g. https://airflow.example.com/execution/",
        )
    return url if url.endswith("/") else url + "/"


def without_user(url: str) -> str:
    """Return a URL for display, without name and password."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
