"""What the ranks of a dropout test do; run by the pool."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tests.distributed.runs import small_run


def masks(values: dict[str, Any]) -> dict[str, np.ndarray]:
    """What each place of this rank's model drops of a row of ones: the values that come out, by the place's name.

    All weights are zero, but the token table and the biases after a product, which are one: the embedding gives ones,
    and each layer adds ones twice, each time with dropout.
    """
    found: dict[str, np.ndarray] = {}
    with small_run("gpt2", hidden_dropout=0.5, **values) as run:
        (model,) = run.language_model
        for name, weight in model.named_parameters():
            is_one = name.endswith(("word_embeddings.weight", "linear_proj.bias", "linear_fc2.bias"))
            weight.data.fill_(1.0 if is_one else 0.0)

        def note(name: str) -> Any:
            def hook(module: torch.nn.Module, inputs: Any, named: dict[str, Any], output: Any) -> None:
                came = output[0] if isinstance(output, tuple) else output
                found[name] = (came - named.get("hidden_states", 0)).detach().numpy()

            return hook

        for name, module in model.named_modules():
            if name == "embedding" or name.rpartition(".")[0].endswith("layers"):
                module.register_forward_hook(note(name), with_kwargs=True)
        tokens = torch.zeros(2, run.config.model.seq_length, dtype=torch.int64)
        model.train()(tokens, torch.arange(tokens.shape[1]).expand_as(tokens), None)
    return found
