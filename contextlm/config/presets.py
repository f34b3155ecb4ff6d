"""Named starting points: `{gpt2,pythia}-SIZE`, and the same with the context head as `contextlm-...`.

Sizes are Hugging Face's; learning rates are those of GPT-2 reproductions and of Pythia-sized runs on the
Pile. A preset never sets precision, batch or run length: those belong to the machine and the run.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from contextlm.config.suggestions import nearest_name
from contextlm.errors import UserError


class _Size(NamedTuple):
    """One row of a family's table; `vocab_size` None is the tokenizer's only."""

    layers: int
    hidden: int
    heads: int
    seq_length: int
    vocab_size: int | None
    lr: float
    weight_decay: float


_GPT2 = {
    "tiny": _Size(4, 128, 4, 256, None, 1e-3, 0.1),
    "124m": _Size(12, 768, 12, 1024, 50257, 6e-4, 0.1),
    "355m": _Size(24, 1024, 16, 1024, 50257, 3e-4, 0.1),
    "774m": _Size(36, 1280, 20, 1024, 50257, 2.5e-4, 0.1),
    "1.5b": _Size(48, 1600, 25, 1024, 50257, 2e-4, 0.1),
}
_PYTHIA = {
    "tiny": _Size(4, 128, 4, 256, None, 1e-3, 0.1),
    "70m": _Size(6, 512, 8, 2048, 50304, 1e-3, 0.01),
    "160m": _Size(12, 768, 12, 2048, 50304, 6e-4, 0.01),
    "410m": _Size(24, 1024, 16, 2048, 50304, 3e-4, 0.1),
    "1b": _Size(16, 2048, 8, 2048, 50304, 2.5e-4, 0.01),
    "1.4b": _Size(24, 2048, 16, 2048, 50304, 2e-4, 0.01),
}
_FAMILIES = {"gpt2": _GPT2, "pythia": _PYTHIA}
_FAMILY_MODEL: dict[str, dict[str, Any]] = {
    "gpt2": {
        "position_embedding_type": "learned_absolute",
        "gelu": "tanh",
        "init_method": "normal",
        "output_layer_init_method": "scaled_normal",
    },
    "pythia": {
        "position_embedding_type": "rope",
        "rotary_percent": 0.25,
        "gelu": "erf",
        "parallel_residual": True,
        "untie_embeddings_and_output_weights": True,
        "init_method": "small_init",
        "output_layer_init_method": "wang_init",
    },
}


def preset_names() -> list[str]:
    """Every name that `preset` knows, plain ones first."""
    plain = [f"{family}-{size}" for family, sizes in _FAMILIES.items() for size in sizes]
    return plain + [f"contextlm-{name}" for name in plain]


def preset(name: str, where: str = "--model") -> dict[str, dict[str, Any]]:
    """Section -> field -> value of a preset. Raises UserError that begins with `where` for an unknown name."""
    if name not in preset_names():
        near = nearest_name(name, preset_names())
        hint = f"did you mean {near}?" if near else "use one of " + ", ".join(preset_names())
        raise UserError(f"{where}: no preset is called {name!r}; {hint}")
    plain = name.removeprefix("contextlm-")
    family, size_name = plain.split("-", 1)
    size = _FAMILIES[family][size_name]
    model = {
        "num_layers": size.layers,
        "hidden_size": size.hidden,
        "num_attention_heads": size.heads,
        "seq_length": size.seq_length,
        "vocab_size": size.vocab_size,
        **_FAMILY_MODEL[family],
    }
    optimizer = {"lr": size.lr, "min_lr": round(size.lr / 10, 9), "weight_decay": size.weight_decay}
    values: dict[str, dict[str, Any]] = {"model": model, "optimizer": optimizer}
    if plain != name:
        values["context"] = {"context_chunk_size": 4}
    return values
