"""What a run tells: Megatron's log line, and one JSON object per iteration in `metrics.jsonl`.

Losses stay on the device until a log line, so that logging does not stop it. Only the last rank, which
has the loss, prints and writes.
"""

from __future__ import annotations

import datetime
import json
import math
import time
from pathlib import Path
from typing import Any

import torch

from contextlm import atomic_files
from contextlm.analysis.measures import Evaluation
from contextlm.training.setup import Run
from contextlm.training.step import StepResult
from contextlm.training.throughput import Throughput


class Metrics:
    """The words of one run; every rank has one, and all but the last are silent."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.throughput = Throughput(run)
        self.speaks = run.layout.is_last_rank
        folder = run.config.output_dir
        self.path = None if folder is None or not self.speaks else Path(folder) / "metrics.jsonl"
        self.waiting: list[tuple[dict[str, Any], StepResult]] = []  # training lines without their losses
        self.lines: list[dict[str, Any]] = []  # all lines since the last log line, in order
        self.clock = time.perf_counter()

    def say(self, *sentences: str) -> None:
        """Print, once for all ranks."""
        if self.speaks:
            for sentence in sentences:
                print(sentence, flush=True)

    def start(self, iteration: int) -> None:
        """Cut `metrics.jsonl` back to what `iteration` had written, so that nothing is missing or doubled."""
        self.restart_clock()
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept = []
        before = self.path.read_text() if self.path.exists() else None
        if iteration > 0 and before is not None:
            lines = before.splitlines()
            numbers = [_iteration_of(line) for line in lines]
            kept = [line + "\n" for line, n in zip(lines, numbers, strict=True) if n is not None and n <= iteration]
            if None in numbers[:-1]:  # the last one may be half-written by a killed run
                self.say(f"warning: {self.path}: left out {numbers[:-1].count(None)} unreadable line(s)")
        if before != "".join(kept):
            atomic_files.write_bytes(self.path, "".join(kept).encode())

    def record(self, result: StepResult) -> None:
        """Keep one iteration's values until the next log line."""
        now = time.perf_counter()
        elapsed, self.clock = now - self.clock, now
        progress, tokens = self.run.progress, self.run.config.model.seq_length
        rate = result.num_samples * tokens / elapsed
        line = {
            "iteration": progress.iteration,
            "lm_loss": None,
            "grad_norm": result.grad_norm,
            "learning_rate": result.learning_rate,
            "consumed_samples": progress.consumed_samples,
            "consumed_tokens": progress.consumed_samples * tokens,
            "tokens_per_second": rate,
            "elapsed_ms": elapsed * 1000,
            "mfu": self.throughput.mfu(rate),
        }
        self.waiting.append((line, result))
        self.lines.append(line)

    def log(self) -> None:
        """Print the log line of the iterations since the last one, and write their metrics."""
        if self.speaks and self.waiting:
            losses = torch.stack([result.loss for _, result in self.waiting]).tolist()
            for (line, _), loss in zip(self.waiting, losses, strict=True):
                line["lm_loss"] = loss
            self._print([line for line, _ in self.waiting], [result for _, result in self.waiting])
        self.waiting.clear()
        self._write()

    def _print(self, lines: list[dict[str, Any]], results: list[StepResult]) -> None:
        """Megatron's line, to which parsers are written: only append to it."""
        last = lines[-1]
        seconds = sum(line["elapsed_ms"] for line in lines) / 1000 / len(lines)
        samples = sum(result.num_samples for result in results) / len(results)
        rate = samples * self.run.config.model.seq_length / seconds
        mfu = self.throughput.mfu(rate)
        eta = datetime.timedelta(seconds=round(seconds * (self.run.num_iterations - last["iteration"])))
        loss = sum(line["lm_loss"] for line in lines) / len(lines)
        norm = math.nan if last["grad_norm"] is None else last["grad_norm"]
        self.say(
            f" [{datetime.datetime.now()}]"
            f" iteration {last['iteration']:8d}/{self.run.num_iterations:8d} |"
            f" consumed samples: {last['consumed_samples']:12d} |"
            f" elapsed time per iteration (ms): {seconds * 1000:.1f} |"
            f" throughput per GPU (TFLOP/s/GPU): {self.throughput.tflops_per_device(rate):.1f} |"
            f" learning rate: {last['learning_rate']:.6E} |"
            f" global batch size: {results[-1].num_samples:5d} |"
            f" lm loss: {loss:.6E} |"
            f" loss scale: {float(results[-1].loss_scale):.1f} |"
            f" grad norm: {norm:.3f} |"
            f" number of skipped iterations: {sum(result.skipped for result in results):3d} |"
            f" number of nan iterations: {sum(not math.isfinite(line['lm_loss']) for line in lines):3d} |"
            f" tokens/s/GPU: {rate / self.run.runtime.world_size:.0f} |"
            f" MFU: {'n/a' if mfu is None else f'{mfu:.1%}'} |"
            f" ETA: {eta} |"
        )

    def log_evaluation(self, split: str, result: Evaluation) -> None:
        """Print and write the result on one split; its time is not counted as training's."""
        iteration = self.run.progress.iteration
        bits = result.bits_per_byte
        self.say(
            f" {split} loss at iteration {iteration} | lm loss value: {result.lm_loss:.6E} |"
            f" lm loss PPL: {result.perplexity:.6E} |" + ("" if bits is None else f" bits per byte: {bits:.4f} |")
        )
        self.lines.append(
            {
                "iteration": iteration,
                "split": split,
                "lm_loss": result.lm_loss,
                "perplexity": result.perplexity,
                "bits_per_byte": bits,
                "num_tokens": result.num_tokens,
            }
        )
        self.restart_clock()

    def restart_clock(self) -> None:
        """Leave out of the next iteration's time what was not training."""
        self.clock = time.perf_counter()

    def _write(self) -> None:
        """Append the finished lines."""
        if self.path is not None and self.lines:
            with open(self.path, "a") as file:
                file.writelines(json.dumps(_without_nan(line)) + "\n" for line in self.lines)
        self.lines.clear()


def _without_nan(line: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no NaN and no infinity: they become null."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in line.items()
    }


def _iteration_of(line: str) -> int | None:
    """The iteration that a line of metrics.jsonl is about; None if it is no such line."""
    try:
        return int(json.loads(line)["iteration"])
    except (ValueError, KeyError, TypeError):
        return None
