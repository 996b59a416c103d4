"""The limits: one table, by class of texts and by rule.

The final figures are at or below the worst of six projects with good prose: docket, procrastinate, stamina, starlette,
svcs and uvicorn. Lower a limit when its figure improves. Never raise one.
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
        "tell, say, hear": 1.3,
        "that, which, what, who": 15,
        "where as a condition": 0.3,
        "dialect": 1.8,
        "sentences over 25 words": 2.0,
    },
    "guides": {
        "tell, say, hear": 0.8,
        "that, which, what, who": 9,
        "where as a condition": 0.1,
        "dialect": 0.3,
        "you, your": 11,
        "sentences over 25 words": 3,
    },
    "pages": {
        "tell, say, hear": 1.9,
        "that, which, what, who": 17,
        "where as a condition": 0.5,
        "dialect": 1.0,
        "sentences over 25 words": 4,
    },
    "code": {
        "tell, say, hear": 4.1,
        "that, which, what, who": 43.5,
        "where as a condition": 1.4,
        "dialect": 4.9,
        "sentences over 25 words": 2.8,
        "docstrings without a verb": 14.8,
    },
    "tests": {
        "tell, say, hear": 9.2,
        "that, which, what, who": 54,
        "where as a condition": 2,
        "dialect": 8.4,
        "sentences over 25 words": 1.8,
    },
}
LONG_LINES = 95
