"""What the ranks of a test of the measures do; run by the pool."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from tests.distributed.runs import load_weights, small_run


def model_measures(folder: str, values: dict[str, Any]) -> dict[str, Any]:
    """One step from the shared checkpoint, then what a log line measures, as this rank knows it."""
    from contextlm.training.model_measures import measure
    from contextlm.training.step import train_step

    with small_run("gpt2", **values) as run:
        load_weights(run, folder)
        batches = run.micro_batches(run.datasets.train, 0, run.num_microbatches)
        train_step(run, batches)
        if batches is not None:
            batches.close()
        return measure(run)._asdict()


def gathers_at_a_log_line(values: dict[str, Any]) -> int:
    """How often a log line gathers all weights."""
    from contextlm.training import model_measures

    gather = mock.Mock(side_effect=model_measures.gathered_weights)
    with small_run("gpt2", **values) as run, mock.patch.object(model_measures, "gathered_weights", gather):
        model_measures.measure(run)
    return gather.call_count


def weights_after_a_step(folder: str, values: dict[str, Any]) -> tuple[float, float]:
    """In one process: the norm over all weights, in fp64, and the gate."""
    from contextlm.training.step import train_step

    with small_run("gpt2", **values) as run:
        load_weights(run, folder)
        batches = run.micro_batches(run.datasets.train, 0, run.num_microbatches)
        train_step(run, batches)
        batches.close()
        weights = dict(run.language_model[0].named_parameters())
        (gate,) = [weight for name, weight in weights.items() if name.endswith("gate")]
        everything = torch.cat([weight.detach().double().flatten() for weight in weights.values()])
        return torch.linalg.vector_norm(everything).item(), gate.item()


def evaluation(folder: str | None, values: dict[str, Any]) -> tuple[Any, ...]:
    """An evaluation of the shared checkpoint, or of fresh weights."""
    from contextlm.training.evaluation import evaluate

    with small_run("gpt2", **values) as run:
        if folder is not None:
            load_weights(run, folder)
        result = evaluate(run, run.datasets.validation, 3)
        assert result is not None
        return tuple(result)


def elapsed_beside_slow_work(values: dict[str, Any]) -> list[float]:
    """The `elapsed_ms` of iterations, by a clock that goes 1 ms a look and 1000 s in each piece of other work."""
    from contextlm.training import clock, replicas, train

    seconds = [0.0]

    def tick(by: float = 0.001) -> float:
        seconds[0] += by
        return seconds[0]

    @contextlib.contextmanager
    def slow_garbage() -> Iterator[Any]:
        yield lambda: tick(1000)

    export = torch.profiler.profile.export_chrome_trace
    with (
        mock.patch.object(clock, "time", mock.Mock(perf_counter=tick)),
        mock.patch.object(replicas, "check", lambda run: tick(1000)),
        mock.patch.object(train, "collected_by_hand", slow_garbage),
        mock.patch.object(
            torch.profiler.profile, "export_chrome_trace", lambda self, path: (export(self, path), tick(1000))
        ),
    ):
        _, lines = told(values)
    assert seconds[0] > 2000
    return [line["elapsed_ms"] for line in lines]


def told_without_a_disk_for_traces(values: dict[str, Any]) -> str:
    """What is printed when a trace cannot be written."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with mock.patch.object(torch.profiler.profile, "export_chrome_trace", full):
        return told(values)[0]


def told_of_compiling(seconds_by_call: list[float], values: dict[str, Any]) -> list[str]:
    """The lines of a run that speak of compiling, where the compiler has taken so long at each asking."""
    from contextlm.training import metrics

    with mock.patch.object(metrics, "seconds_spent", mock.Mock(side_effect=seconds_by_call)):
        printed, _ = told(values)
    return [line.strip() for line in printed.splitlines() if "compiling" in line]


def told(values: dict[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """Train with these options; what is printed, and the lines of metrics.jsonl."""
    from contextlm.training.train import train

    printed = io.StringIO()
    with small_run("gpt2", **values) as run, contextlib.redirect_stdout(printed):
        train(run)
    lines = (Path(run.config.output_dir) / "metrics.jsonl").read_text().splitlines()
    return printed.getvalue(), [json.loads(line) for line in lines]


def own_work_of_a_slow_rank(slow_rank: int, values: dict[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """Train where one rank's clock goes 100 ms in each forward pass, the others' 40; waiting takes no time on it."""
    from contextlm.training import clock, step

    seconds = [0.0]
    forward_step = step._forward_step

    def slow_forward_step(run: Any, *arguments: Any) -> Any:
        forward = forward_step(run, *arguments)

        def slow(*arguments: Any) -> Any:
            seconds[0] += 0.1 if run.runtime.rank == slow_rank else 0.04
            return forward(*arguments)

        return slow

    with (
        mock.patch.object(clock, "time", mock.Mock(perf_counter=lambda: seconds[0])),
        mock.patch.object(step, "_forward_step", slow_forward_step),
    ):
        return told(values)
