"""What a run tells: Megatron's log line, one JSON object per iteration in `metrics.jsonl`, trackers, a progress bar.

Losses, gradient norms and times stay on the device until a log line, so that telling does not stop it. Only the
last rank, which has the loss, prints and writes. Read next: `log_line.py` (words), `metrics_file.py`,
`model_measures.py` (what a log line asks all ranks for), `trackers.py`.
"""

from __future__ import annotations

import math
import time
from types import TracebackType
from typing import Any, NamedTuple

import torch

from contextlm.analysis.measures import Evaluation
from contextlm.data.loader import Stream
from contextlm.model.compilation import seconds_spent
from contextlm.training.clock import Clock, Mark, seconds_between
from contextlm.training.log_line import evaluation_line, log_line
from contextlm.training.metrics_file import MetricsFile
from contextlm.training.model_measures import ModelMeasures, measure
from contextlm.training.own_work import OwnWork, SlowRank
from contextlm.training.progress_bar import ProgressBar
from contextlm.training.setup import Run
from contextlm.training.skipping import Why
from contextlm.training.step import StepResult
from contextlm.training.throughput import Throughput
from contextlm.training.trackers import Trackers
from contextlm.training.whereabouts import LOG_LINE


class Recorded(NamedTuple):
    """An iteration that waits for its log line.

    Attributes:
        line: its line of metrics.jsonl, without what is still on the device.
        worked_until: when this rank had its own gradients, see `own_work.py`.
    """

    line: dict[str, Any]
    result: StepResult
    began: Mark
    worked_until: Mark
    ended: Mark


class Metrics:
    """The words of one run; every rank has one, and all but the last are silent."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.throughput = Throughput(run)
        self.speaks = run.layout.is_last_rank
        self.file = MetricsFile(run.config.output_dir if self.speaks else None)
        self.keep = self.file.append
        self.bar = ProgressBar(run.num_iterations, enabled=self.speaks and run.config.logging.progress_bar)
        self.trackers: Trackers | None = None
        self.waiting: list[Recorded] = []
        self.lines: list[dict[str, Any]] = []  # all lines since the last log line, in order
        self.continued_at, self.known_splits = 0, set[str]()
        self.clock = Clock(run.runtime.device)
        self.began = self.clock.now()
        self.own_work, self.slow_rank = OwnWork(run, self.clock), SlowRank()
        self.data_wait = self.compiled_for = 0.0

    def __enter__(self) -> Metrics:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.bar.close()
        self.own_work.close()
        if self.trackers is not None:
            self.trackers.close(failed=error is not None)

    def say(self, *sentences: str, every_rank: bool = False) -> None:
        """Print, once for all ranks, or on every rank that says it."""
        if self.speaks or every_rank:
            for sentence in sentences:
                self.bar.print(sentence)

    def start(self, iteration: int) -> None:
        """Cut `metrics.jsonl` back to what `iteration` had written, and open the trackers; collective."""
        if unreadable := self.file.cut_back(iteration):
            self.say(f"warning: {self.file.path}: left out {unreadable} unreadable line(s)")
        if self.speaks:
            self.trackers = Trackers(self.run.config, iteration, self.say)
        known = [self.file.splits_at(iteration)]
        torch.distributed.broadcast_object_list(known, src=self.run.runtime.world_size - 1)
        self.continued_at, self.known_splits = iteration, known[0]
        self.restart_clock()

    def go_back(self) -> None:
        """Forget what the run did since the checkpoint that it is back at; collective."""
        self.waiting.clear()
        self.lines.clear()
        if self.trackers is not None:
            self.trackers.close(failed=False)
        self.start(self.run.progress.iteration)

    def start_to_evaluate(self) -> None:
        """Leave `metrics.jsonl` as it is, but for older lines of the evaluations that come, and open the trackers."""
        self.keep = self.file.replace
        if self.speaks:
            self.trackers = Trackers(self.run.config, None, self.say)

    def has_evaluation(self, split: str) -> bool:
        """Whether a split's evaluation of this iteration was there when the run was continued after it.

        Where no file is kept nothing is missing.
        """
        is_there = self.run.config.output_dir is None or split in self.known_splits
        return is_there and self.run.progress.iteration == self.continued_at

    def timed(self, batches: Stream | None) -> Stream | None:
        """The same micro-batches; the time that the loop waits for them is counted."""
        return None if batches is None else self._timed(batches)

    def _timed(self, batches: Stream) -> Stream:
        try:
            while True:
                began = time.perf_counter()
                batch = next(batches, None)
                self.data_wait += time.perf_counter() - began
                if batch is None:
                    return
                yield batch
        finally:
            batches.close()

    def record(self, result: StepResult) -> None:
        """Keep one iteration's values until the next log line."""
        began, self.began = self.began, self.clock.now()
        worked_until = self.own_work.take()
        wait, self.data_wait = self.data_wait, 0.0
        progress, tokens = self.run.progress, self.run.config.model.seq_length
        line = {
            "iteration": progress.iteration,
            "lm_loss": None,
            "grad_norm": None,
            "learning_rate": result.learning_rate,
            "consumed_samples": progress.consumed_samples,
            "consumed_tokens": progress.consumed_samples * tokens,
            "tokens_per_second": None,
            "elapsed_ms": None,
            "mfu": None,
            "tokens_per_second_per_gpu": None,
            "tflops_per_gpu": None,
            "data_wait_ms": wait * 1000,
            "eta_seconds": None,
            "skipped": None,
            "params_norm": None,
            "gate": None,
            "peak_memory_bytes": None,
            "own_ms_fastest": None,
            "own_ms_median": None,
            "own_ms_slowest": None,
            "slowest_rank": None,
        }
        if progress.failed_saves:
            line["failed_saves"] = progress.failed_saves
        self.waiting.append(Recorded(line, result, began, worked_until, self.began))
        self.lines.append(line)
        self.bar.show(progress.iteration)

    def log(self) -> None:
        """Print the log line of the iterations since the last one, and write their metrics; collective."""
        self.run.where.at(LOG_LINE, self.run.progress.iteration)
        if self.waiting:
            own = sum(seconds_between(waiting.began, waiting.worked_until) for waiting in self.waiting)
            measures = measure(self.run, own / len(self.waiting))
            if self.speaks:
                self._complete(measures)
        self.waiting.clear()
        self._write()

    def _complete(self, measures: ModelMeasures) -> None:
        """Fetch what the waiting lines lack from the device, and print their log line."""
        lines, results = [waiting.line for waiting in self.waiting], [waiting.result for waiting in self.waiting]
        losses = torch.stack([result.loss for result in results]).tolist()
        codes = torch.stack([result.skipped for result in results]).tolist()
        norms = torch.stack(
            [result.loss.new_tensor(math.nan) if result.grad_norm is None else result.grad_norm for result in results]
        )
        length, num_iterations = self.run.config.model.seq_length, self.run.num_iterations
        total = 0.0
        columns = zip(self.waiting, losses, norms.tolist(), map(Why, codes), strict=True)
        for (line, result, began, _, ended), loss, norm, why in columns:
            seconds = seconds_between(began, ended)
            total += seconds
            line |= self.throughput.rates(result.num_samples * length, seconds)
            line |= {"lm_loss": loss, "grad_norm": norm, "elapsed_ms": seconds * 1000}
            line["skipped"] = None if why is Why.UPDATED else why.word
        lines[-1]["eta_seconds"] = total / len(lines) * (num_iterations - lines[-1]["iteration"])
        lines[-1] |= measures._asdict()
        rates = self.throughput.rates(sum(result.num_samples for result in results) * length, total)
        self.say(
            log_line(lines, results, rates, num_iterations), *self.slow_rank.told(measures), *self._compiled("of it")
        )

    def _compiled(self, of_what: str) -> tuple[str, ...]:
        """How long the compiler took since the last line, if it was asked."""
        before, self.compiled_for = self.compiled_for, seconds_spent()
        spent = self.compiled_for - before
        return (f"compiling took {spent:.1f} s {of_what}",) if spent > 0.1 else ()

    def log_evaluation(self, split: str, result: Evaluation) -> None:
        """Print and write the result on one split; its time is not counted as training's."""
        iteration = self.run.progress.iteration
        self.say(evaluation_line(split, iteration, result), *self._compiled("since the line before"))
        self.lines.append(
            {
                "iteration": iteration,
                "split": split,
                "lm_loss": result.lm_loss,
                "perplexity": result.perplexity,
                "bits_per_byte": result.bits_per_byte,
                "num_tokens": result.num_tokens,
                "lm_loss_by_position": result.lm_loss_by_position,
                "lm_loss_context_zeroed": result.lm_loss_context_zeroed,
            }
        )
        if not self.waiting:  # else the lines before it are not complete yet
            self._write()
        self.restart_clock()

    def restart_clock(self) -> None:
        """Leave out of the next iteration's time what was not training."""
        self.began = self.clock.now()

    def _write(self) -> None:
        """Append the finished lines to the file and pass them to the trackers."""
        self.keep(self.lines)
        if self.trackers is not None:
            self.run.where.at("telling the trackers")
            for line in self.lines:
                self.trackers.log(line)
        self.lines.clear()
