"""The words of a run: Megatron's log line, and the line of an evaluation. Parsers are written to both: only append."""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from typing import Any

from contextlm.analysis.measures import POSITIONS_TOLD, Evaluation
from contextlm.training.skipping import Why
from contextlm.training.step import StepResult


def log_line(
    lines: Sequence[dict[str, Any]], results: Sequence[StepResult], rates: dict[str, float | None], num_iterations: int
) -> str:
    """What the iterations since the last log line did.

    Args:
        lines: of metrics.jsonl, one for each iteration; the last one has the measures of a log line.
        results: of the same iterations.
        rates: over all of them, see `throughput.py`.
        num_iterations: iterations of the whole run.
    """
    last, mfu = lines[-1], rates["mfu"]
    updates = [line for line in lines if line["skipped"] is None]
    words = (
        f" [{datetime.datetime.now()}]"
        f" iteration {last['iteration']:8d}/{num_iterations:8d} |"
        f" consumed samples: {last['consumed_samples']:12d} |"
        f" elapsed time per iteration (ms): {_mean(lines, 'elapsed_ms'):.1f} |"
        f" throughput per GPU (TFLOP/s/GPU): {rates['tflops_per_gpu']:.1f} |"
        f" learning rate: {last['learning_rate']:.6E} |"
        f" global batch size: {results[-1].num_samples:5d} |"
        f" lm loss: {_mean(updates or lines, 'lm_loss'):.6E} |"
        f" loss scale: {float(results[-1].loss_scale):.1f} |"
        f" grad norm: {last['grad_norm']:.3f} |"
        f" number of skipped iterations: {len(lines) - len(updates):3d} |"
        f" number of nan iterations: {sum(map(_is_nan, lines)):3d} |"
        f" tokens/s/GPU: {rates['tokens_per_second_per_gpu']:.0f} |"
        f" MFU: {'n/a' if mfu is None else f'{mfu:.1%}'} |"
        f" ETA: {datetime.timedelta(seconds=round(last['eta_seconds']))} |"
        f" tokens/s: {rates['tokens_per_second']:.0f} |"
        f" data wait (ms): {_mean(lines, 'data_wait_ms'):.1f} |"
        f" peak memory (GiB): {last['peak_memory_bytes'] / 2**30:.2f} |"
        f" params norm: {last['params_norm']:.3f} |"
        f" gate: {'n/a' if last['gate'] is None else format(last['gate'], '.4f')} |"
    )
    return words + (f" failed saves: {last['failed_saves']} |" if "failed_saves" in last else "")


def evaluation_line(split: str, iteration: int, result: Evaluation) -> str:
    """What an evaluation found."""
    line = (
        f" {split} loss at iteration {iteration} | lm loss value: {result.lm_loss:.6E} |"
        f" lm loss PPL: {result.perplexity:.6E} |"
    )
    if result.bits_per_byte is not None:
        line += f" bits per byte: {result.bits_per_byte:.4f} |"
    if result.lm_loss_context_zeroed is not None:
        line += f" lm loss, context zeroed: {result.lm_loss_context_zeroed:.6E} |"
    by_position = result.lm_loss_by_position or ()
    if 0 < len(by_position) <= POSITIONS_TOLD:
        line += f" lm loss by position in chunk: {' '.join(f'{loss:.4f}' for loss in by_position)} |"
    return line


def _is_nan(line: dict[str, Any]) -> bool:
    """Whether its loss or its gradient norm is no number; an fp16 overflow that lowers the loss scale is none."""
    return not math.isfinite(line["lm_loss"]) or line["skipped"] in (Why.NAN_LOSS.word, Why.NAN_NORM.word)


def _mean(lines: Sequence[dict[str, Any]], name: str) -> float:
    return sum(line[name] for line in lines) / len(lines)
