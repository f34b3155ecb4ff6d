"""The most memory that activations take at once: recomputation inside a micro-batch, and the pipeline's schedule.

A stage keeps a micro-batch from its forward to its backward pass. In the backward pass tensors join what is kept
for a moment: what is computed again, gradients of activations, a weight's gradient on its way to the gradient buffer,
16-bit logits beside their softmax in fp32. The gradient of a tied table waits for the embedding's from the output
layer's backward pass to the end.
"""

from __future__ import annotations

from itertools import accumulate
from typing import NamedTuple

from contextlm.analysis.activation_memory import Activations, Tensors
from contextlm.config.pipeline import stage_parts
from contextlm.config.schema import Config

_RECOMPUTED = {
    # Not q, k, v, from which attention starts again, nor its output, which the projection keeps.
    "core_attn": ("log-sum-exp of the scores",),
    "mlp": ("input of GELU", "input of fc2"),
}


_ROUNDS = 4  # of as many micro-batches as there are stages, until a schedule has filled and repeats itself


class Segment(NamedTuple):
    """A part of the forward pass: bytes that it keeps, and those that join them in its own backward pass.

    again: computed again, and kept like the others.
    passing: alive only while the backward pass is there.
    logits: those among all of them.
    """

    kept: int
    again: int = 0
    passing: int = 0
    logits: int = 0


def segments(activations: Activations, layers: range, first: bool, last: bool) -> list[Segment]:
    """A part of the model in the order of its forward pass.

    Args:
        activations: the tables.
        layers: the layers that it holds.
        first: whether it begins with the embedding.
        last: whether it ends with the loss.
    """
    tied = first and last and not activations.config.model.untie_embeddings_and_output_weights
    waiting = activations.table if tied else 0
    found = [_embedding(activations)] if first else []
    groups = _recomputed_groups(activations.config, layers)
    rest = layers[sum(map(len, groups)) :]
    if not first and not groups and not _keeps_input(activations.config, rest[0]):
        found.append(Segment(activations.stream))  # what the stage before has sent: the schedule keeps it
    found += [_recomputed(activations, group) for group in groups]
    found += [segment for layer in rest for segment in _layer(activations, layer)]
    found = [segment._replace(passing=segment.passing + waiting) for segment in found]
    return [*found, _output(activations)] if last else found


def _embedding(activations: Activations) -> Segment:
    """Its gradient is as large as its table."""
    return Segment(sum(activations.embedding().values()), passing=activations.stream + activations.table)


def _output(activations: Activations) -> Segment:
    """Final norm, output layer and loss, at the greater of two moments: the loss's end, the output layer's product."""
    output = activations.output()
    kept, softmax = sum(output.values()), output["softmax"]
    # The output layer's own logits, and later their gradient, are in the type of the activations.
    rounded = softmax // 2 if activations.config.half_precision else 0
    at_loss = Segment(kept, 0, rounded, softmax + rounded)
    logits = rounded or softmax
    states = activations.states * activations.element
    at_product = Segment(kept, 0, states + activations.table + logits - softmax, logits)
    return max(at_loss, at_product, key=lambda segment: segment.passing)


def _recomputed_groups(config: Config, layers: range) -> list[range]:
    """The runs of layers that full recomputation treats as one."""
    training, size = config.training, config.training.recompute_num_layers or 1
    if training.recompute_granularity != "full":
        return []
    if training.recompute_method == "block":
        return [layers[index : index + 1] for index in range(min(size, len(layers)))]
    return [layers[index : index + size] for index in range(0, len(layers), size)]


def _recomputed(activations: Activations, group: range) -> Segment:
    """Layers of which only the input is kept; its norm, computed again, reads that same tensor."""
    inside = sum(sum(part.values()) for layer in group for part in _parts(activations, layer))
    shared = activations.stream if _keeps_input(activations.config, group[0]) else 0
    # The output is there a second time.
    passing = max(activations.gradients, activations.attention_beyond_mlp) + activations.stream
    return Segment(activations.stream, inside - shared, passing)


def _layer(activations: Activations, layer: int) -> list[Segment]:
    """A layer, behind the head where it stands, without what selective recomputation makes again."""
    training = activations.config.training
    modules = training.recompute_modules if training.recompute_granularity == "selective" else ()
    # The MLP's output is there a second time, too. The head's gradients are below those of the layer behind it.
    passing = activations.gradients + (activations.stream if "mlp" in modules else 0)
    passing = max(passing, activations.attention_beyond_mlp)
    *head, layer_itself = _parts(activations, layer)
    return [*(_segment(part, modules) for part in head), _segment(layer_itself, modules, passing)]


def _segment(part: Tensors, modules: tuple[str, ...], passing: int = 0) -> Segment:
    """A part, of which modules are computed again, one after the other."""
    again = [sum(part.get(name, 0) for name in _RECOMPUTED[module]) for module in modules]
    return Segment(sum(part.values()) - sum(again), max(again, default=0), passing)


def _parts(activations: Activations, layer: int) -> list[Tensors]:
    head = activations.context_head() if _has_head(activations.config, layer) else []
    return [*head, activations.layer()]


def _has_head(config: Config, layer: int) -> bool:
    return config.context.enabled and layer == config.encoder_layers


def _keeps_input(config: Config, layer: int) -> bool:
    """Whether a norm reads, and keeps, the states that reach a layer; most fusions do not."""
    return not _has_head(config, layer) or config.context.context_fusion == "norm_add"


class Peak(NamedTuple):
    """The moment at which a rank holds most: bytes of activations, logits included, and those of the logits."""

    total: int
    logits: int


def peak_activations(
    config: Config, vocab_size: int, stage: int, num_microbatches: int, *, mask_bytes: int = 1, passing: bool = True
) -> Peak:
    """The most bytes of activations at once on a rank of a pipeline stage.

    Args:
        config: the configuration.
        vocab_size: of the tokenizer, unpadded.
        stage: of the pipeline.
        num_microbatches: of one data-parallel rank in a step.
        mask_bytes: of an element of a dropout mask.
        passing: whether tensors count that no operation keeps.
    """
    stages, parts = config.parallel.pipeline_model_parallel_size, stage_parts(config, stage)
    activations, last_part = Activations(config, vocab_size, mask_bytes), len(parts) - 1
    kept, inside = [], []
    for index, layers in enumerate(parts):
        found = segments(activations, layers, stage == index == 0, stage == stages - 1 and index == last_part)
        # The backward pass has freed what lies behind the segment that it is at.
        before = list(accumulate(segment.kept for segment in found))
        joining = [segment.again + (segment.passing if passing else 0) for segment in found]
        kept.append(before[-1])
        inside.append(max(Peak(b + j, segment.logits) for b, j, segment in zip(before, joining, found, strict=True)))
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
            peak = max(peak, Peak(held + inside[part].total, inside[part].logits))
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
