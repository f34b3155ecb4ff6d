"""What the forward pass of one micro-batch keeps for its backward pass, on one tensor-parallel rank.

The formulas are those of Korthikanti et al., 2022, "Reducing Activation Recomputation in Large Transformer
Models", for attention that keeps no S x S matrix: with 16 bits and dropout a GPT-2 layer keeps
S B H (10 + 24 / t) bytes on each of t tensor-parallel ranks, S B H 34 / t under sequence parallelism. Here they
are tables with a row for each tensor, so that a reader can check each against the operation that keeps it. What
two operations keep is one tensor, and one row. They hold for the torch backend, compiled or not
(`whole_graph.py`); Transformer Engine's fused operations keep less, about one [S, B, H] for each norm.

Not counted: token ids and their masks, under 1%; the S x S matrices that torch's attention builds where it has no
fused kernel: with attention dropout on a CPU; the masks of `--reset-attention-mask`, [B, S, S] once for all layers
where torch has no kernel that does without, and [B, C, C] in the head. Read next: `activation_peak.py`.

Shapes: S positions, B samples of a micro-batch, H hidden, F width of the MLP, N attention heads, V padded
vocabulary, t tensor-parallel ranks, C chunks of the context head.
"""

from __future__ import annotations

import functools

from contextlm.analysis.execution import Execution
from contextlm.config.schema import Config

Tensors = dict[str, int]
"""Bytes of each tensor that an operation keeps."""

_FP32 = 4
CUDNN_WORKSPACE_LIMIT = 256 * 2**20
"""Bytes of cuDNN's S x S matrices in attention's backward pass; CUDNN_FRONTEND_ATTN_DP_WORKSPACE_LIMIT changes it."""


class Activations:
    """The tables of one configuration.

    Args:
        config: the configuration.
        vocab_size: of the tokenizer, unpadded.
        how: how it is computed.
    """

    def __init__(self, config: Config, vocab_size: int, how: Execution) -> None:
        self.config, self.vocab_size, self.how = config, vocab_size, how
        self.element = 2 if config.half_precision else _FP32
        # torch on a CPU keeps a mask as an activation.
        self.mask = (1 if how.on_cuda else self.element) if config.model.hidden_dropout > 0 else 0
        self.ranks = config.parallel.tensor_model_parallel_size
        # Norms, dropout and residuals act on each position by itself: sequence parallelism splits them too.
        self.stream_ranks = self.ranks if config.parallel.splits_sequence else 1
        self.positions = config.model.seq_length * config.training.micro_batch_size
        self.states = self.positions * config.model.hidden_size

    @property
    def stream(self) -> int:
        """Bytes of the states between two layers, [S, B, H], on one rank."""
        return self.states * self.element // self.stream_ranks

    @functools.cached_property
    def gradients(self) -> int:
        """Bytes of gradients where a layer has most of them, at its last product.

        Of the layer's output; of the product's output, if dropout or a gathering stands between them; of its input;
        of its weights, on their way to the gradient buffer.
        """
        differs = self.mask > 0 or self.stream_ranks > 1
        inner = self.positions * self.config.model.ffn_size * self.element // self.ranks
        return self.stream + (self.states * self.element if differs else 0) + inner + self.matrix

    @property
    def matrix(self) -> int:
        """Bytes of a gradient of one of the MLP's matrices."""
        return self.config.model.hidden_size * self.config.model.ffn_size * self.element // self.ranks

    @property
    def table(self) -> int:
        """Bytes of a gradient of the embedding or of the output layer, before it joins the gradient buffer."""
        padded = self.config.model.padded_vocab_size(self.vocab_size, self.ranks)
        return padded // self.ranks * self.config.model.hidden_size * self.element

    @property
    def attention_backward(self) -> int:
        """Bytes that join at the backward pass of attention on a GPU in 16 bits: gradients and a workspace.

        cuDNN on Hopper writes an S x S matrix for each sample and head as long as all of them fit its limit.
        """
        if not self.config.half_precision:
            return 0  # the layer's last product has more
        divided = self.states * self.element // self.ranks
        matrices = self.positions * self.config.model.seq_length * self.config.model.num_attention_heads
        workspace = matrices * self.element // self.ranks
        if workspace > CUDNN_WORKSPACE_LIMIT:
            workspace = self.states * _FP32 // self.ranks  # the sums of q's gradient
        return self.stream + 4 * divided + workspace  # of the residual, the output, q, k and v

    def passing(self, again: int = 0) -> int:
        """Bytes that a layer's backward pass holds for a moment, at its last product or at its attention.

        At attention all that its MLP has kept or computed again is gone.

        Args:
            again: of what is there a second time while the MLP is computed again.
        """
        gone = sum(
            size for name, size in self.layer().items() if any(part in name for part in ("MLP", "fc1", "GELU", "fc2"))
        )
        # A compiled layer gives out the gradients of its weights at its end, autograd each to its buffer.
        made = 0 if self.how.compiled == "off" and not self.how.gradients_wait else 2 * self.matrix
        return max(self.gradients + again, self.attention_backward + made - gone)

    def embedding(self) -> Tensors:
        """Lookups keep ids only."""
        return {"dropout mask": self.states * self.mask // self.stream_ranks}

    def layer(self) -> Tensors:
        """One layer of the backbone."""
        return self._layer(self.config.model.seq_length, self.stream_ranks)

    def context_head(self) -> list[Tensors]:
        """The head, in the order of its forward pass; pooling and repeating keep nothing.

        Under sequence parallelism every rank runs the predictor on all C chunks.
        """
        context, batch_size = self.config.context, self.config.training.micro_batch_size
        chunks = self.config.model.seq_length // context.context_chunk_size
        parts = [self._layer(chunks, stream_ranks=1) for _ in range(context.context_predictor_layers)]
        if context.context_fusion == "add":
            return parts
        parts.append(self._norm(chunks * batch_size, stream_ranks=1))
        if context.context_fusion == "norm_add":
            return [*parts, self._norm(self.positions, self.stream_ranks)]
        return [*parts, {"guidance, for the gate's gradient": self.stream}]

    def output(self) -> Tensors:
        """Final norm, output layer, loss: on CUDA one of ours, else megatron-core's.

        That makes the softmax of the logits in place of their copy in fp32.
        """
        logits = self.positions * self.config.model.padded_vocab_size(self.vocab_size, self.ranks) // self.ranks
        found = self._norm(self.positions, self.stream_ranks) | {"input of the output layer": self.stream}
        if self.how.on_cuda:
            return found | {"logits, later their gradients": logits * self.element}
        return found | {"softmax": logits * _FP32}

    def _layer(self, length: int, stream_ranks: int) -> Tensors:
        """One layer over `length` positions of each sample, which `stream_ranks` split where they can."""
        model, positions = self.config.model, length * self.config.training.micro_batch_size
        states = positions * model.hidden_size
        stream, divided = states * self.element // stream_ranks, states * self.element // self.ranks
        inner = positions * model.ffn_size * self.element // self.ranks
        mask, statistics = states * self.mask // stream_ranks, 2 * positions * _FP32 // stream_ranks
        tensors = {
            "input of the attention norm": stream,
            "mean and deviation of the attention norm": statistics,
            "input of qkv": stream,
            "q, k, v": 3 * divided,
            "log-sum-exp of the scores": positions * model.num_attention_heads * _FP32 // self.ranks,
            "input of the attention projection": divided,
            "dropout mask of attention": mask,
            "input of the MLP norm": stream,
            "mean and deviation of the MLP norm": statistics,
            "input of fc1": stream,
            "input of GELU": inner,
            "input of fc2": inner,
            "dropout mask of the MLP": mask,
        }
        if model.parallel_residual:
            del tensors["input of the MLP norm"]  # that of the attention norm
        if model.position_embedding_type == "rope":
            # v is a part of the tensor that holds q and k too, so that stays beside the rotated q and k.
            tensors["rotated q, k"] = 2 * divided
            angles = int(model.rotary_percent * model.hidden_size // model.num_attention_heads)
            tensors["cosines and sines for q, k"] = 4 * length * angles * self.element
        if self.config.fp8:  # a byte each; attention keeps its output, too
            inputs = ("qkv", "the attention projection, rounded", "fc1")
            tensors |= {f"input of {product}": states for product in inputs}
            tensors |= {"input of fc2": positions * model.ffn_size, "weights, rounded": self._matrices}
        return tensors

    @property
    def _matrices(self) -> int:
        """Elements of the matrices of a layer."""
        return self.config.model.hidden_size * (4 * self.config.model.hidden_size + 2 * self.config.model.ffn_size)

    def _norm(self, positions: int, stream_ranks: int) -> Tensors:
        return {
            "input of the norm": positions * self.config.model.hidden_size * self.element // stream_ranks,
            "mean and deviation of the norm": 2 * positions * _FP32 // stream_ranks,
        }
