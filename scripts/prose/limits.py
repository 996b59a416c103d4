"""The limits: one table, by class of texts and by rule.

The final figures are at or below the worst of the projects that modalflow is measured against: docket, procrastinate,
stamina, starlette, svcs and uvicorn. Lower a limit when its figure improves. Never raise one.
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
        "tell, say, hear": 4,
        "that, which, what, who": 27,
        "where as a condition": 0.8,
        "dialect": 4.5,
        "sentences over 25 words": 2.2,
    },
    "guides": {
        "tell, say, hear": 5.2,
        "that, which, what, who": 40,
        "where as a condition": 1.9,
        "dialect": 4,
        "you, your": 4.2,
        "sentences over 25 words": 9.5,
    },
    "pages": {
        "tell, say, hear": 5.2,
        "that, which, what, who": 36,
        "where as a condition": 1.6,
        "dialect": 6,
        "sentences over 25 words": 16.2,
    },
    "code": {
        "tell, say, hear": 6.6,
        "that, which, what, who": 54.5,
        "where as a condition": 2.5,
        "dialect": 7.1,
        "sentences over 25 words": 3.6,
        "docstrings without a verb": 25.8,
    },
    "tests": {
        "tell, say, hear": 9.6,
        "that, which, what, who": 54.5,
        "where as a condition": 2,
        "dialect": 8.7,
        "sentences over 25 words": 1.8,
    },
}
LONG_LINES = 690
