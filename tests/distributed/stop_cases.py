"""What the ranks of a test of stops and faults do; run by the pool."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

QUIET = {"eval_iters": 0, "log_interval": 100, "micro_batch_size": 1, "global_batch_size": 4, "lr": 1e-3}


def train_with(folder: str, at: int, what: str, values: dict[str, Any], on_rank: int | None = None) -> dict[str, Any]:
    """Train in `folder`, where something happens in iteration `at`.

    Args:
        what: "signal": SIGUSR1 to this process; "Ctrl-C": SIGINT, likewise; "weights": one weight is NaN before the
            iteration; "late": after it; "overflow": all gradients are infinite from then on; "norm": one gradient is;
            "evaluation": it fails, after that iteration; "nothing".
        on_rank: where it happens; on every rank if None.

    Returns:
        `stopped_by` the loop's answer, `iteration` where it ended, `fault` what it raised, if anything.
    """
    from contextlm.training import evaluation_sets, stopping
    from contextlm.training import train as loop
    from contextlm.training.faults import Fault
    from tests.distributed.runs import small_run

    # Where the tests run in the background Ctrl-C is ignored, and what is ignored is inherited.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with small_run("gpt2", save=folder, load=folder, **(QUIET | values)) as run:
        before = [signal.getsignal(number) for number in stopping.SIGNALS]
        stepping = _disturbed(loop.train_step, at, what if on_rank in (None, run.runtime.rank) else "nothing")
        found: dict[str, Any] = {"stopped_by": None, "fault": None}
        evaluating = _failing(evaluation_sets.evaluate, at if what == "evaluation" else None)
        with (
            mock.patch.object(loop, "train_step", stepping),
            mock.patch.object(evaluation_sets, "evaluate", evaluating),
            mock.patch.object(stopping, "SECONDS_BETWEEN_QUESTIONS", 0),
        ):
            try:
                found["stopped_by"] = loop.train(run)
            except Fault as fault:
                found["fault"] = (fault.what, fault.remedy)
        handlers = [signal.getsignal(number) for number in stopping.SIGNALS]
        return found | {"iteration": run.progress.iteration, "handlers_are_back": handlers == before}


def status_while_trackers_close(folder: str) -> int:
    """What `exit.json` says when a signal has stopped a run and its trackers are being closed."""
    from contextlm.training import trackers

    found: list[int] = []

    def close(*_: object, failed: bool) -> None:
        record = Path(folder, "exit.json")
        found.append(json.loads(record.read_text())["status"] if record.exists() else 0)

    with mock.patch.object(trackers.Trackers, "close", close):
        train_with(folder, 1, "signal", {"train_iters": 3})
    return found[0]


def _disturbed(train_step: Callable[..., Any], at: int, what: str) -> Callable[..., Any]:
    from megatron.core.utils import get_model_config

    def step(run: Any, batches: Any) -> Any:
        now = run.progress.iteration + 1 == at
        if now and what == "signal":
            os.kill(os.getpid(), signal.SIGUSR1)
        if now and what == "Ctrl-C":
            os.kill(os.getpid(), signal.SIGINT)
        if now and what == "overflow":
            get_model_config(run.model[0]).grad_scale_func = lambda loss: loss * float("inf")
        if now and what == "weights":
            _spoil(run)
        if now and what == "norm":
            with _infinite_gradient():
                return train_step(run, batches)
        result = train_step(run, batches)
        if now and what == "late":
            _spoil(run)
        return result

    return step


@contextlib.contextmanager
def _infinite_gradient() -> Iterator[None]:
    from contextlm.training import step

    original = step.compute_gradients

    def with_an_inf(run: Any, *arguments: Any) -> Any:
        sums = original(run, *arguments)
        next(run.language_model[-1].parameters()).main_grad.flatten()[0] = float("inf")
        return sums

    with mock.patch.object(step, "compute_gradients", with_an_inf):
        yield


def _failing(evaluate: Callable[..., Any], at: int | None) -> Callable[..., Any]:
    from contextlm.training.faults import Fault

    def fail(run: Any, *arguments: Any) -> Any:
        if run.progress.iteration == at:
            raise Fault("no memory to evaluate", "try less")
        return evaluate(run, *arguments)

    return fail


def _spoil(run: Any) -> None:
    if run.layout.is_last_stage:
        next(run.language_model[-1].parameters()).data.flatten()[0] = float("nan")


def losses(folder: str | Path) -> list[float | None]:
    """The training losses of a run, by iteration."""
    lines = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    return [line["lm_loss"] for line in lines if "split" not in line]


def told(folder: str | Path) -> list[tuple[int, str | None, float | None]]:
    """Every line of metrics.jsonl: iteration, split, loss."""
    lines = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    return [(line["iteration"], line.get("split"), line["lm_loss"]) for line in lines]


def command(words: list[str]) -> int:
    """`pretrain_contextlm.py WORDS` without a new process; its exit status."""
    from contextlm.config.resolve import parse
    from contextlm.training.loop import pretrain

    return pretrain(parse(words).config)


def leave_alone() -> tuple[str, str] | None:
    """Rank 1 goes while rank 0 waits for it: what rank 0 says."""
    from contextlm.config.schema import ParallelConfig
    from contextlm.parallel import runtime
    from contextlm.parallel.agreement import Agreement
    from contextlm.training.faults import Fault, in_words

    with contextlib.suppress(RuntimeError), runtime.start(ParallelConfig()) as process:
        hosts = Agreement(1)
        assert hosts.largest(process.rank, -process.rank, -float("inf")) == [1, 0, -float("inf")]
        if process.rank == 1:
            _close_connections()
            raise RuntimeError("gone")
        try:
            with in_words():
                hosts.largest(0)
        except Fault as fault:
            told = fault.what, fault.remedy
            raise
    return told if os.environ["RANK"] == "0" else None


def _close_connections() -> None:
    """What the kernel does for a process that died: its peers read the end of the stream."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(name))) as connection:
            if connection.family != socket.AF_UNIX and connection.getpeername()[1] != int(os.environ["MASTER_PORT"]):
                connection.shutdown(socket.SHUT_RDWR)
