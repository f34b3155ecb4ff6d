"""The compiled model is the model: one graph, the same losses and gradients."""

from __future__ import annotations

import pytest
import torch

from contextlm.model.compilation import compile_parts, seconds_spent
from tests.small_configs import VOCAB_SIZE, small_config

LENGTH = 22


def losses_and_gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    model.train().zero_grad()
    tokens = torch.randint(0, VOCAB_SIZE, (2, LENGTH + 1), generator=torch.Generator().manual_seed(1))
    positions = torch.arange(LENGTH).expand(2, -1)
    losses = model(tokens[:, :-1].contiguous(), positions, None, labels=tokens[:, 1:].contiguous())
    losses.sum().backward()
    return {"losses": losses.detach()} | {name: p.grad.clone() for name, p in model.named_parameters()}


def logits(model: torch.nn.Module) -> torch.Tensor:
    tokens = torch.randint(0, VOCAB_SIZE, (2, LENGTH), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        return model.eval()(tokens, torch.arange(LENGTH).expand(2, -1), None)[..., :VOCAB_SIZE]


@pytest.mark.parametrize("unit", ["model", "layer"])
@pytest.mark.parametrize(
    ("backbone", "values"), [("gpt2", {}), ("pythia", {}), ("pythia", {"max_position_embeddings": 8})]
)
def test_compiled_is_the_same(build, compile_with, backbone, values, unit):
    """Also with fewer positions than tokens, which rotations are not limited by."""
    model = build(small_config(backbone, **values))
    assert model.vocab_size > VOCAB_SIZE  # there is padding to mask
    expected, expected_logits = losses_and_gradients(model), logits(model)
    graphs = []

    def keep(graph, inputs):
        graphs.append(graph)
        return graph

    compile_with(keep)
    compile_parts([model], unit)
    torch.testing.assert_close(logits(model), expected_logits)
    graphs.clear()
    before = seconds_spent()
    actual = losses_and_gradients(model)
    assert (len(graphs) == 1) == (unit == "model")  # by layer: one for each of the two kinds
    assert seconds_spent() > before
    told = seconds_spent()
    losses_and_gradients(model)
    assert seconds_spent() == told
    for name, value in expected.items():
        assert (actual[name] - value).abs().max() <= 1e-5 * value.abs().max(), name


def test_no_run_ends_at_the_compilers_limit(build, compile_with):
    """Layers of one kind share it."""
    model = build(small_config("gpt2", num_layers=4))
    compile_with(lambda graph, _: graph)
    with torch._dynamo.config.patch(recompile_limit=1):
        compile_parts([model], "layer")
        losses_and_gradients(model)
        logits(model)
        with torch._dynamo.config.patch(recompile_limit=1), pytest.raises(Exception, match="fullgraph"):
            torch._dynamo.reset()
            losses_and_gradients(model)
            logits(model)
