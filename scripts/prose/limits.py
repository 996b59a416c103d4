"""The limits: one table, by class of texts and by rule.

The limits are at or below the worst figures of six projects with good prose, counted in the same way: docket,
procrastinate, stamina, starlette, svcs and uvicorn. Their worst figures are, for docs and for code: 1.1 and 0.5 (tell),
17.4 and 21.4 (that), 0.4 and 0.1 (where), 1.3 and 1.4 (dialect), 10.8 and 11.1 (long sentences), 8.1 (no verb). Their
docs have 12 to 41 times "you". Lower a limit when its figure improves. Never raise one.
"""

from __future__ import annotations

CLASSES = {
    "messages": "help, errors, reasons, option descriptions and log lines: texts in src",
    "guides": "README.md and the pages in docs/ for users",
    "pages": "reference pages, ARCHITECTURE, CONTRIBUTING, CHANGELOG, decisions and other pages",
    "code": "docstrings and comments in src, scripts and benchmarks",
    "tests": "docstrings and comments in tests",
}

LIMITS: dict[str, dict[str, float]] = {
    "messages": {
        "tell, say, hear": 1.1,
        "that, which, what, who": 15,
        "where as a condition": 0.3,
        "dialect": 0.8,
        "sentences over 25 words": 2.0,
    },
    "guides": {
        "tell, say, hear": 1.1,
        "that, which, what, who": 15,
        "where as a condition": 0.3,
        "dialect": 0.5,
        "you, your": 11,
        "sentences over 25 words": 4,
    },
    "pages": {
        "tell, say, hear": 1.1,
        "that, which, what, who": 15,
        "where as a condition": 0.4,
        "dialect": 0.6,
        "sentences over 25 words": 4,
    },
    "code": {
        "tell, say, hear": 1.1,
        "that, which, what, who": 21.4,
        "where as a condition": 0.3,
        "dialect": 1.3,
        "sentences over 25 words": 2.0,
        "docstrings without a verb": 2.0,
    },
    # Not final: the docstrings of older tests are still to be rewritten.
    "tests": {
        "tell, say, hear": 9.2,
        "that, which, what, who": 54,
        "where as a condition": 2,
        "dialect": 8.4,
        "sentences over 25 words": 1.8,
    },
}
LONG_LINES = 0
