"""One line of what was found."""

from __future__ import annotations

from typing import NamedTuple

OK, WARNING, PROBLEM = "ok", "warning", "problem"


class Finding(NamedTuple):
    """What was looked at, and how it is.

    Attributes:
        subject: what it belongs to, e.g. `packages`.
        name: of the thing.
        words: how it is.
        state: OK, WARNING (a run may suffer from it) or PROBLEM (it will).
        remedy: what to do; empty where all is well.
    """

    subject: str
    name: str
    words: str
    state: str = OK
    remedy: str = ""
