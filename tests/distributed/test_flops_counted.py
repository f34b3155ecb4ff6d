"""FLOP formulas against torch's counter on the models themselves, and the matched baselines built and counted."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from contextlm.analysis.flops import forward_flops_per_token, training_flops_per_token
from contextlm.analysis.matching import match
from contextlm.analysis.parameters import count_parameters
from contextlm.config.schema import ContextConfig
from tests.distributed import flop_cases
from tests.distributed.pool import Pool
from tests.small_configs import small_config

# Every row of the table is a product: the counter sees the padding too, so here is none.
WHOLE = {"vocab_size": 512, "seq_length": 64}
MODELS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("gpt2", {"context_chunk_size": 0}),
    ("pythia", {"context_chunk_size": 0}),
    ("gpt2", {}),
    ("gpt2", {"context_predictor_layers": 0, "context_encoder_layers": 0}),
    ("gpt2", {"context_predictor_layers": 4, "context_chunk_size": 2, "context_fusion": "norm_add"}),
    ("gpt2", {"context_chunk_size": 16, "seq_length": 67, "context_encoder_layers": 3}),
    ("pythia", {"context_predictor_layers": 1, "context_encoder_layers": 0, "ffn_hidden_size": 160}),
    ("pythia", {"context_predictor_layers": 3, "context_chunk_size": 8, "context_fusion": "add"}),
)


def test_torch_counts_what_the_formulas_say(pool: Pool) -> None:
    models = [(backbone, WHOLE | values) for backbone, values in MODELS]
    (counts,) = pool.run(flop_cases.counted, 1, models=models)
    for (backbone, values), counted in zip(models, counts, strict=True):
        config = small_config(backbone, **values)
        assert count_parameters(config, 512).total == counted.parameters, values
        assert forward_flops_per_token(config, 512) == pytest.approx(counted.forward, rel=0.01), values
        assert training_flops_per_token(config, 512) == pytest.approx(counted.training, rel=0.01), values
        if config.context.context_predictor_layers > 0 and config.context.enabled:  # the head's share would be missed
            plain = dataclasses.replace(config, context=ContextConfig())
            assert forward_flops_per_token(plain, 512) != pytest.approx(counted.forward, rel=0.01), values


def test_matched_baselines_have_the_stated_difference(pool: Pool) -> None:
    questions = [("gpt2", "params", "depth"), ("gpt2", "flops", "width"), ("pythia", "flops", "mlp")]
    models, found = [], []
    for backbone, budget, size in questions:
        config = small_config(backbone, **WHOLE)
        matched = match(dataclasses.replace(config, context=ContextConfig()), config, budget, size, 512)
        found.append(matched)
        models += [
            (backbone, WHOLE),
            (backbone, WHOLE | {"context_chunk_size": 0, matched.field: matched.value}),
        ]
    (counts,) = pool.run(flop_cases.counted, 1, models=models)
    for index, (_, budget, _) in enumerate(questions):
        head, plain = counts[2 * index : 2 * index + 2]
        amounts = (head.parameters, plain.parameters) if budget == "params" else (head.training, plain.training)
        assert amounts[1] / amounts[0] - 1 == pytest.approx(found[index].residual, abs=0.002), questions[index]
