"""The record of one fault that happened, in the control plane and at its clients."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Injection:
    """One fault that happened."""

    at: float
    """The system's time."""
    subject: str
    """What it happened to: an RPC, a Queue, a function."""
    occasion: int
    """The occasion of the rule with that subject, from 1 on."""
    what: str
    """The effect, in words."""
