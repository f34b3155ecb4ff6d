"""The ladder: what each thing that makes our plain trainer fast is worth, from none of them to all.

A rung has everything below it; what comes above it is taken out by patches, here and nowhere else: the product has no
options for it. Each gain is predicted from the bytes that need no longer be moved, at the speed of a copy on the same
device. That is less than a gain where what falls away was slow for another reason, as small kernels and launches are.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple
from unittest import mock

from contextlm.config.compile_unit import replays
from contextlm.config.schema import Config
from contextlm.config.unbuffered import adds_nothing_up
from gpu_trainers import num_parameters, vocab_size
from table import table

BARE = "megatron-core's layers"
SECONDS = 6.0  # of a window


class Sizes(NamedTuple):
    """What the bytes follow from."""

    tokens: int
    layers: int
    hidden: int
    scores: int  # of one layer's attention
    logits: int
    parameters: int

    @classmethod
    def of(cls, config: Config) -> Sizes:
        """Those of a configuration."""
        model, batch = config.model, config.global_batch_size(1)
        tokens = model.seq_length * batch
        scores = tokens * model.seq_length * model.num_attention_heads
        logits = tokens * model.padded_vocab_size(vocab_size(config), 1)
        return cls(tokens, model.num_layers, model.hidden_size, scores, logits, num_parameters(config))


class Rung(NamedTuple):
    """Something that makes it faster.

    Attributes:
        without: takes it out, for runs that are built and run inside.
        saves: bytes an iteration.
        which: these bytes, in words.
        options: the configuration without it.
    """

    name: str
    without: Callable[[], contextlib.AbstractContextManager[Any]]
    saves: Callable[[Sizes], float]
    which: str
    options: Mapping[str, str] = MappingProxyType({})


def rungs(config: Config) -> tuple[Rung, ...]:
    """From the bottom, those that make a difference to this configuration."""
    from contextlm.model import whole_rows  # takes the compiler along

    together = Rung(
        "kernels launched together",
        contextlib.nullcontext,
        lambda s: 0.0,
        "none, it is launches",
        {"cuda_graphs": "off"},
    )
    applies = {
        _UNBUFFERED.name: adds_nothing_up(config, 1),
        _ONE_SUM.name: not adds_nothing_up(config, 1),
        _WHOLE_ROWS.name: 1024 < config.model.hidden_size <= whole_rows.MAX_COLUMNS and whole_rows.has_place(),
        together.name: replays(config, 1, on_cuda=True),
    }
    return tuple(rung for rung in (*_RUNGS, together) if applies.get(rung.name, True))


@contextlib.contextmanager
def without(above: Sequence[Rung]) -> Iterator[Mapping[str, str]]:
    """Inside, runs that are built and run have none of these; yields what is else in their configuration."""
    values: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        for rung in reversed(above):
            stack.enter_context(rung.without())
            values |= rung.options
        yield values


def shown(rates: Mapping[str, float], config: Config, bytes_per_second: float) -> str:
    """The table: tokens a second of each rung, the gain that was predicted, and the one that was measured.

    Args:
        rates: rung -> iterations a second.
        config: of the plain trainer.
        bytes_per_second: of a copy.
    """
    rows, below, sizes = [], None, Sizes.of(config)
    for name, rung in ((BARE, None), *((rung.name, rung) for rung in rungs(config))):
        rate = rates.get(name)
        predicted = "" if rung is None else f"{rung.saves(sizes) / bytes_per_second * 1e3:.2f}"
        measured = "" if rate is None or below is None else f"{(1 / below - 1 / rate) * 1e3:.2f}"
        gain = "" if rate is None or below is None else f"{rate / below - 1:+.1%}"
        tokens = "not measured" if rate is None else f"{rate * sizes.tokens:,.0f}"
        rows.append((f"+ {name}" if rung else name, tokens, predicted, measured, gain))
        below = rate
    legend = "\n".join(f"{rung.name}: {rung.saves(sizes) / 1e9:.1f} GB: {rung.which}" for rung in rungs(config))
    return f"{table(('step', 'tokens/s', 'ms predicted', 'ms measured', 'gain'), rows)}\n{legend}"


def _megatrons_attention() -> contextlib.AbstractContextManager[Any]:
    from megatron.core.models.backends import LocalSpecProvider

    from contextlm.model.backends import TorchSpecProvider

    return mock.patch.object(TorchSpecProvider, "core_attention", LocalSpecProvider.core_attention)


@contextlib.contextmanager
def _biases_apart() -> Iterator[None]:
    from megatron.core.tensor_parallel import ColumnParallelLinear, RowParallelLinear

    from contextlm.model.linear import ColumnLinear, RowLinear

    with (
        mock.patch.object(ColumnLinear, "forward", ColumnParallelLinear.forward),
        mock.patch.object(RowLinear, "forward", RowParallelLinear.forward),
    ):
        yield


def _row_biases_inside() -> contextlib.AbstractContextManager[Any]:
    from torch.nn.functional import linear

    from contextlm.model.linear import RowLinear

    def forward(layer: Any, input_: Any) -> tuple[Any, None]:
        return linear(input_, layer.weight, layer.bias), None

    return mock.patch.object(RowLinear, "forward", forward)


def _sums_by_hooks() -> contextlib.AbstractContextManager[Any]:
    from contextlm.training import setup

    return mock.patch.object(setup, "GradientSums", lambda: None)


def _compilers_gelu() -> contextlib.AbstractContextManager[Any]:
    from contextlm.megatron import gelu

    return mock.patch.object(gelu, "leaves_bias_gradient", lambda *_: False)


@contextlib.contextmanager
def _rows_read_twice() -> Iterator[None]:
    import torch._inductor.config
    from torch._inductor.choices import InductorChoices
    from torch._inductor.virtualized import V

    from contextlm.model import whole_rows

    with (
        mock.patch.object(whole_rows, "read_rows_once", lambda: None),
        torch._inductor.config.patch(inductor_choices_class=None),  # caches go by this
        V.set_choices_handler(InductorChoices()),  # and what is compiled by that
    ):
        yield


def _zeros_first() -> contextlib.AbstractContextManager[Any]:
    from megatron.core.distributed import DistributedDataParallel

    mark = DistributedDataParallel.zero_grad_buffer

    @functools.wraps(mark)
    def zero_grad_buffer(part: Any) -> None:
        mark(part)
        for buffer in part.buffers:
            buffer.grad_data.zero_()
        for parameter in part.params_with_grad:
            parameter.main_grad_is_stale = False

    return mock.patch.object(DistributedDataParallel, "zero_grad_buffer", zero_grad_buffer)


def _torchs_adamw() -> contextlib.AbstractContextManager[Any]:
    from contextlm.megatron.adamw import FusedAdamW

    return mock.patch.object(FusedAdamW, "has_own_kernel", False)


def _buffers() -> contextlib.AbstractContextManager[Any]:
    from contextlm.training import setup

    return mock.patch.object(setup, "without_buffers", lambda *_: False)


def _megatrons_loss() -> contextlib.AbstractContextManager[Any]:
    from contextlm.model.language_model import ContextLM

    def losses(model: Any, logits_SBV: Any, labels_BS: Any) -> Any:
        model._mask_padding(logits_SBV)
        return model.compute_language_model_loss(labels_BS, logits_SBV)

    return mock.patch.object(ContextLM, "_fused_losses", losses)


_UNBUFFERED = Rung(
    "gradients without a buffer",
    _buffers,
    lambda s: 10.0 * s.parameters,
    "bf16 gradients into an fp32 buffer (6), norm and AdamW read half (4)",
)
_WHOLE_ROWS = Rung(
    "rows read once",
    _rows_read_twice,
    lambda s: 8.0 * s.hidden * s.tokens * s.layers,
    "what LayerNorm's forward pass adds up, 8 H a token and layer",
)
_ONE_SUM = Rung(
    "sums in one kernel",
    _sums_by_hooks,
    lambda s: 0.0,
    "none, it is launches, and additions that moved numbers one by one",
)
_RUNGS = (
    Rung(
        "torch's attention",
        _megatrons_attention,
        lambda s: 72.0 * s.scores * s.layers,
        "S x S scores: 32 forward, 40 backward, each read or written in bf16 or fp32",
    ),
    Rung(
        "biases inside the products",
        _biases_apart,
        lambda s: 4.0 * 9 * s.hidden * s.tokens * s.layers,
        "outputs of 9 H a token and layer, read and written again",
    ),
    Rung(
        "the first gradient replaces",
        _zeros_first,
        lambda s: 8.0 * s.parameters,
        "fp32 gradients, zeros written and read",
    ),
    Rung(
        "AdamW as one kernel",
        _torchs_adamw,
        lambda s: 20.0 * s.parameters,
        "fp32 gradients read and written by the division and the clip (16), masters read for the weights (4)",
    ),
    _UNBUFFERED,
    Rung(
        "loss kernels",
        _megatrons_loss,
        lambda s: 46.0 * s.logits,
        "logits: 52 in fp32, where ours read 2, read 2 and write 2",
    ),
    Rung(
        "each layer compiled",
        contextlib.nullcontext,
        lambda s: 24.0 * s.hidden * s.tokens * s.layers,
        "residuals and norms, 24 H a token and layer; without GELU, launches and transposes",
        {"compile": "off"},
    ),
    Rung(
        "one graph",
        contextlib.nullcontext,
        lambda s: 8.0 * s.hidden * s.tokens * s.layers,
        "the norm at each layer's begin, 8 H a token; without Python between layers",
        {"compile": "layer"},
    ),
    _ONE_SUM,
    Rung(
        "row biases behind the products",
        _row_biases_inside,
        lambda s: 0.0,
        "none, products that add a bias take longer",
    ),
    Rung(
        "GELU's kernels",
        _compilers_gelu,
        lambda s: 16.0 * s.hidden * s.tokens * s.layers,
        "GELU's input and gradient read again, 16 H a token and layer",
    ),
    _WHOLE_ROWS,
)
