"""What happened to a run, in words: memory that ran out, data that vanished, a rank that is gone.

The first line says what happened, the second what to try. `exit.json` gets the first. The exception behind them is
chained, and its traceback printed above them: it says where, which the two lines do not.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator, Sequence

from contextlm.data.indexed import DataLost
from contextlm.errors import UserError

_GONE = ("connection closed by peer", "connection reset by peer", "broken pipe", "gloo", "nccl", "socket")
_SILENT = ("timed out", "timeout")


class Fault(RuntimeError):
    """Something that befell a run, and no mistake of its configuration.

    Args:
        what: happened, one line.
        remedy: what to try, one line.
        details: printed before both, a line each.
    """

    def __init__(self, what: str, remedy: str, details: Sequence[str] = ()) -> None:
        super().__init__(f"{what}\n{remedy}")
        self.what = what
        self.remedy = remedy
        self.details = details


@contextlib.contextmanager
def in_words() -> Iterator[None]:
    """Inside, exceptions that we have words for become a `Fault` with the exception as its cause."""
    try:
        yield
    except BaseException as error:
        if (fault := explain(error)) is None or fault is error:
            raise
        raise fault from error


def explain(error: BaseException) -> Fault | None:
    """The fault behind an exception; None if we have no better words than its own."""
    if isinstance(error, Fault):
        return error
    if isinstance(error, (UserError, KeyboardInterrupt, SystemExit)):
        return None
    rank, said = os.environ.get("RANK", "0"), first_line(error)
    if isinstance(error, DataLost):
        return Fault(
            f"rank {rank} lost its data: {error}",
            "put the files back as they were, then run the same command again: it continues from the last checkpoint",
        )
    if memory := exhausted_memory(error):
        return Fault(
            f"rank {rank} ran out of {memory} memory: {said}",
            "try a smaller --micro-batch-size, --recompute-granularity full --recompute-method uniform "
            "--recompute-num-layers 1, or a larger --tensor-model-parallel-size; --dry-run shows the memory of a rank",
        )
    if is_of_a_group(error):
        if is_timeout(error):
            return Fault(
                f"rank {rank} waited in vain for another rank: {said}",
                "look for the rank that hangs, or give slow ones more time with --distributed-timeout-minutes",
            )
        return Fault(
            f"rank {rank} lost contact with another rank: {said}",
            "that rank's own last lines say why, unless it was killed (out of host memory? a lost node?); "
            "run the same command again: it continues from the last checkpoint",
        )
    return None


def tell(fault: Fault) -> None:
    """Print the traceback of the exception behind a fault, if there is one, its details, then the two lines."""
    if fault.__cause__ is not None:
        traceback.print_exception(fault.__cause__)
    for line in fault.details:
        print(line, file=sys.stderr)
    print(f"error: {fault.what}\n       {fault.remedy}", file=sys.stderr)


def tell_interrupted() -> None:
    """Say once, on rank 0, what Ctrl-C has left."""
    if os.environ.get("RANK", "0") == "0":
        print("\ninterrupted, and not saved: the next start goes on from the last checkpoint, if any", file=sys.stderr)


def exhausted_memory(error: BaseException) -> str | None:
    """Which memory is full, if that is what an exception says."""
    import torch

    if isinstance(error, torch.OutOfMemoryError):
        return "GPU"
    return "host" if isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error) else None


def tell_torchrun(error: BaseException) -> None:
    """Leave an error where torchrun finds it, to print it last; `record` does that for what a rank raises."""
    if "TORCHELASTIC_ERROR_FILE" in os.environ:
        from torch.distributed.elastic.multiprocessing.errors import get_error_handler

        get_error_handler().record_exception(error)


def is_timeout(error: BaseException) -> bool:
    """Whether an exception of a collective says that another rank was silent for too long."""
    return any(word in str(error).lower() for word in _SILENT)


def is_of_a_group(error: BaseException) -> bool:
    """Whether an exception comes from a collective: torch's own, gloo's plain ones, or megatron-core's around them."""
    from torch.distributed import DistError
    from torch.distributed.checkpoint import CheckpointException

    if isinstance(error, DistError):
        return True
    is_plain = type(error) is RuntimeError or isinstance(error, (CheckpointException, ConnectionError))
    return is_plain and any(word in str(error).lower() for word in _GONE)


def first_line(error: BaseException) -> str:
    """What an exception says, in a line."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
