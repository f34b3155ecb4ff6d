"""The one exception for mistakes that a user can mend."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake in what the user gave; programs print it without a traceback and exit with status 1.

    Args:
        problems: one sentence each, with the flag or file, the value, and the remedy. Checks collect all
            problems before they raise, so that a user mends them in one go.
    """

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))
