"""Parts of the forward pass, what each keeps, and what joins that in its backward pass.

A stage keeps a micro-batch from its forward to its backward pass. In the backward pass tensors join what is kept
for a moment: what is computed again, gradients of activations, a weight's gradient on its way to the gradient buffer;
where the loss is megatron-core's, 16-bit logits beside their softmax in fp32. The gradient of a tied table waits for
the embedding's from the output layer's backward pass to the end. Read next: `whole_graph.py`, `activation_peak.py`.
"""

from __future__ import annotations

from typing import NamedTuple

from contextlm.analysis.activation_memory import Activations, Tensors
from contextlm.analysis.parameters import context_head_parameters, layer_parameters
from contextlm.config.schema import Config

_RECOMPUTED = {
    # Not q, k, v, from which attention starts again, nor its output, which the projection keeps.
    "core_attn": ("log-sum-exp of the scores",),
    "mlp": ("input of GELU", "input of fc2"),
}


class Segment(NamedTuple):
    """A part of the forward pass: bytes that it keeps, and those that join them in its own backward pass.

    again: computed again, and kept like the others.
    passing: alive only while the backward pass is there.
    logits: those among all of them.
    weights: gradients of its weights, in their type, which join after it where they wait for the end.
    """

    kept: int
    again: int = 0
    passing: int = 0
    logits: int = 0
    weights: int = 0


def segments(activations: Activations, layers: range, first: bool, last: bool) -> list[Segment]:
    """A part of the model in the order of its forward pass.

    Args:
        activations: the tables.
        layers: the layers that it holds.
        first: whether it begins with the embedding.
        last: whether it ends with the loss.
    """
    # Where gradients wait for the end, that of the output layer is among them.
    tied = first and last and not activations.config.model.untie_embeddings_and_output_weights
    waiting = activations.table if tied and not activations.how.gradients_wait else 0
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
    kept = sum(activations.embedding().values())
    return Segment(kept, passing=activations.stream + activations.table, weights=activations.table)


def _output(activations: Activations) -> Segment:
    """Final norm, output layer and loss, at the greater of two moments: the loss's end, the output layer's product."""
    output, states = activations.output(), activations.states * activations.element
    kept, weights = sum(output.values()), activations.table
    if activations.how.on_cuda:
        return Segment(kept, 0, states + activations.table, output["logits, later their gradients"], weights)
    softmax = output["softmax"]
    # The output layer's own logits, and later their gradient, are in the type of the activations.
    rounded = softmax // 2 if activations.config.half_precision else 0
    at_loss = Segment(kept, 0, rounded, softmax + rounded, weights)
    logits = rounded or softmax
    at_product = Segment(kept, 0, states + activations.table + logits - softmax, logits, weights)
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
    passing = max(_passing(activations, layer) for layer in group) + activations.stream
    weights = sum(_weights(activations, layer) for layer in group)
    return Segment(activations.stream, inside - shared, passing, weights=weights)


def _layer(activations: Activations, layer: int) -> list[Segment]:
    """A layer, behind the head where it stands, without what selective recomputation makes again."""
    training = activations.config.training
    modules = training.recompute_modules if training.recompute_granularity == "selective" else ()
    # The MLP's output is there a second time, too. The head's gradients are below those of the layer behind it.
    passing = _passing(activations, layer, again=activations.stream if "mlp" in modules else 0)
    first, *others = (_segment(part, modules) for part in _parts(activations, layer))
    found = [first._replace(weights=_weights(activations, layer)), *others]
    return [*found[:-1], found[-1]._replace(passing=passing)]


def _segment(part: Tensors, modules: tuple[str, ...]) -> Segment:
    """A part, of which modules are computed again, one after the other."""
    again = [sum(part.get(name, 0) for name in _RECOMPUTED[module]) for module in modules]
    return Segment(sum(part.values()) - sum(again), max(again, default=0))


def _passing(activations: Activations, layer: int, again: int = 0) -> int:
    """What a layer's backward pass holds for a moment; `again` as the tables have it."""
    passing = activations.passing(again)
    if activations.how.compiled == "layer":  # it gives out all gradients of its weights when what it kept is gone
        kept = sum(sum(part.values()) for part in _parts(activations, layer))
        passing = max(passing, activations.stream + _weights(activations, layer) - kept)
    return passing


def _weights(activations: Activations, layer: int) -> int:
    """Bytes of the gradients of a layer and of the head before it, as autograd makes them."""
    model, ranks = activations.config.model, activations.ranks
    count = layer_parameters(model, ranks)
    if _has_head(activations.config, layer):
        count += context_head_parameters(model, activations.config.context, ranks)
    return count * activations.element


def _parts(activations: Activations, layer: int) -> list[Tensors]:
    head = activations.context_head() if _has_head(activations.config, layer) else []
    return [*head, activations.layer()]


def _has_head(config: Config, layer: int) -> bool:
    return config.context.enabled and layer == config.encoder_layers


def _keeps_input(config: Config, layer: int) -> bool:
    """Whether a norm reads, and keeps, the states that reach a layer; most fusions do not."""
    return not _has_head(config, layer) or config.context.context_fusion == "norm_add"
