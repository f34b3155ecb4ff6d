"""The one exception for mistakes that a user can mend, and how programs of one and of many ranks tell them."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Iterator, Sequence


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
    """The decorator of a tool's main function: a `UserError` becomes lines on stderr and exit status 1.

    Ctrl-C ends it quietly, with the shell's 130.
    """
    with until_the_reader_leaves():
        try:
            yield
        except UserError as error:
            for problem in error.problems:
                print(f"error: {problem}", file=sys.stderr)
            raise SystemExit(1) from None
        except KeyboardInterrupt:
            if sys.stderr.isatty():
                print(file=sys.stderr)  # behind the terminal's ^C
            raise SystemExit(128 + signal.SIGINT) from None


@contextlib.contextmanager
def until_the_reader_leaves() -> Iterator[None]:
    """Around what prints, or its decorator: a reader that leaves, as `head` does, ends it quietly with status 141."""
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # else Python finds out at its very end
    except BrokenPipeError:
        if not _reader_has_left():
            raise
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())  # what is printed, and could not be, goes there at the end
        os.close(nowhere)
        raise SystemExit(128 + signal.SIGPIPE) from None


def _reader_has_left() -> bool:
    """Whether it is the pipe of stdout that broke, and not one to a process of ours."""
    poll = select.poll()
    try:
        poll.register(sys.stdout.fileno(), 0)
    except OSError:  # stdout is no file
        return False
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def tell_warnings(sentences: Sequence[str]) -> None:
    """Every rank finds the same; rank 0 tells it."""
    if os.environ.get("RANK", "0") == "0":
        for sentence in sentences:
            print(f"warning: {sentence}", file=sys.stderr)


def tell_problems(error: UserError) -> None:
    """Every rank finds the same mistakes: rank 0 tells them whole, the others the first of them, after it.

    torchrun ends all ranks when one is gone, so those that say less wait for the one that says more.
    """
    is_first = os.environ.get("RANK", "0") == "0"
    if not is_first:
        time.sleep(3)
    for problem in error.problems if is_first else error.problems[:1]:
        print(f"error: {problem}", file=sys.stderr)
    if "TORCHELASTIC_ERROR_FILE" in os.environ:
        from torch.distributed.elastic.multiprocessing.errors import get_error_handler

        get_error_handler().record_exception(error)  # torchrun prints it last
