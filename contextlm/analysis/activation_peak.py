"""The most memory that activations take at once: inside a micro-batch, and by the pipeline's schedule."""

from __future__ import annotations

from typing import NamedTuple

from contextlm.analysis.activation_memory import Activations
from contextlm.analysis.activation_segments import Segment, segments
from contextlm.analysis.execution import Execution
from contextlm.analysis.whole_graph import orders
from contextlm.config.pipeline import stage_parts
from contextlm.config.schema import Config

_ROUNDS = 4  # of as many micro-batches as there are stages, until a schedule has filled and repeats itself


class Peak(NamedTuple):
    """The moment at which a rank holds most.

    Attributes:
        total: bytes of activations, of the logits among them, and of gradients that wait.
        logits: those of the logits.
        waiting: those of gradients of weights that are in no buffer until the backward pass ends.
    """

    total: int
    logits: int
    waiting: int = 0


def peak_activations(
    config: Config,
    vocab_size: int,
    stage: int,
    num_microbatches: int,
    how: Execution,
    *,
    passing: bool = True,
) -> Peak:
    """The most bytes of activations at once on a rank of a pipeline stage.

    Args:
        config: the configuration.
        vocab_size: of the tokenizer, unpadded.
        stage: of the pipeline.
        num_microbatches: of one data-parallel rank in a step.
        how: how it is computed.
        passing: whether tensors count that no operation keeps.
    """
    stages, parts = config.parallel.pipeline_model_parallel_size, stage_parts(config, stage)
    activations, last_part = Activations(config, vocab_size, how), len(parts) - 1
    kept, inside = [], []
    for index, layers in enumerate(parts):
        found = segments(activations, layers, stage == index == 0, stage == stages - 1 and index == last_part)
        choices = orders(activations, found) if how.compiled == "model" else [found]
        kept.append(sum(segment.kept for segment in found))
        inside.append(min(_backward(order, how, passing) for order in choices))
    # From then on it is the same again and again.
    forward, ahead = _schedule(stages, stage, len(parts), min(num_microbatches, _ROUNDS * stages))
    held, peak = 0, Peak(0, 0)
    for index in range(len(forward) + ahead):
        if index < len(forward):
            held += kept[forward[index]]
            peak = max(peak, Peak(held, 0))  # the loss comes last: where logits are held, its backward pass is next
        if index >= ahead:
            part = last_part - forward[index - ahead]
            held -= kept[part]
            peak = max(peak, inside[part]._replace(total=held + inside[part].total))
    return peak


def _backward(found: list[Segment], how: Execution, passing: bool) -> Peak:
    """Where a micro-batch's backward pass through a part of the model holds most."""
    peak, waiting, kept = Peak(0, 0), 0, sum(segment.kept for segment in found)
    waits = passing and how.gradients_wait
    for segment in reversed(found):
        total = kept + segment.again + (segment.passing if passing else 0) + waiting
        peak = max(peak, Peak(total, segment.logits, waiting))
        kept -= segment.kept  # what lies behind is freed
        waiting += segment.weights if waits else 0
    return peak


def _schedule(stages: int, stage: int, num_parts: int, num_microbatches: int) -> tuple[list[int], int]:
    """The part of each forward pass of a stage, and how many of them come before the first backward pass.

    From then on forward and backward passes alternate, the backward passes through the parts in reverse order.
    """
    if num_parts == 1:
        return [0] * num_microbatches, min(stages - 1 - stage, num_microbatches)
    # Interleaved, each part takes as many micro-batches in turn as there are stages.
    forward = [index // stages % num_parts for index in range(num_microbatches * num_parts)]
    return forward, min(2 * (stages - 1 - stage) + (num_parts - 1) * stages, len(forward))
