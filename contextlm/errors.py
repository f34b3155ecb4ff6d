"""The one exception for mistakes that a user can mend, and how a tool tells them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator


class UserError(ValueError):
    """A mistake in what the user gave; programs print it without a traceback and exit with status 1.

    Args:
        problems: one sentence each, with the flag or file, the value, and the remedy. Checks collect all
            problems before they raise, so that a user mends them in one go.
    """

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


@contextlib.contextmanager
def told_to_the_user() -> Iterator[None]:
    """Around the work of a tool: a `UserError` becomes lines on stderr and exit status 1."""
    try:
        yield
    except UserError as error:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        raise SystemExit(1) from None
