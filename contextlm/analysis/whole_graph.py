"""What a model that is compiled as one graph holds at once.

Between its passes it keeps what its layers keep by themselves: torch's partitioner computes again what fuses, such as
the inside of a norm or of GELU, and never what a product reads (tests/unit/model/test_compiled_memory.py traces it).
What differs is when things are there in the backward pass:

- All gradients of weights leave the graph together, at its end.
- The gradient of the embedding is summed in fp32.
- The output layer's gradient of its weights needs the logits' gradient. With a tied table it is one product with the
  embedding's, at the very end. With a table of its own it comes at once, or after the last layer: the compiler orders
  products so that they hold less.
"""

from __future__ import annotations

from contextlm.analysis.activation_memory import Activations
from contextlm.analysis.activation_segments import Segment

_FP32 = 4


def orders(activations: Activations, found: list[Segment]) -> list[list[Segment]]:
    """The orders in which the backward pass may come, of which the compiler takes that with the lowest peak.

    found: the segments of the model as it is, from the embedding to the loss.
    """
    embedding, *layers, output = found
    tied = not activations.config.model.untie_embeddings_and_output_weights
    sums = activations.table * _FP32 // activations.element
    rounded = activations.table if tied or activations.element < _FP32 else 0
    embedding = embedding._replace(passing=activations.stream + sums + rounded)
    at_once = [embedding, *layers, output]
    # The output layer's input and the logits' gradients wait, and its weights have no gradient yet.
    waiting = output._replace(passing=activations.stream, weights=output.weights - activations.table)
    if tied:
        return [[*(_beside(segment, activations.stream, output.logits) for segment in (embedding, *layers)), waiting]]
    *layers, last = layers
    last = _beside(last, activations.stream, output.logits)
    return [at_once, [embedding, *layers, last._replace(weights=last.weights + activations.table), waiting]]


def _beside(segment: Segment, states: int, logits: int) -> Segment:
    return segment._replace(passing=segment.passing + states + logits, logits=logits)
