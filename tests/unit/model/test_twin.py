"""transformers' ContextLM class is the trainer's model: the same weights give the same logits, loss and gradients."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import contextlm.interop
from contextlm.interop.huggingface_config import from_huggingface_config, to_huggingface_config
from contextlm.interop.huggingface_weights import from_huggingface, to_huggingface
from tests.small_configs import VOCAB_SIZE, small_config
from tests.unit.interop.twins import GPT2, PYTHIA, twin
from tests.unit.model.forward import logits, run, token_ids
from tests.unit.model.test_causality import name, pairwise

pytest.importorskip("transformers")

BOUND = 2e-6  # of the largest value


def whole(model: Any, gradient: bool = False) -> dict[str, Tensor]:
    """The trainer's weights, or their gradients, by checkpoint key."""
    parts = model.sharded_state_dict(metadata={"non_homogeneous_layers": True})
    named = dict(model.named_parameters())
    return {part.key: named[local].grad if gradient else part.data for local, part in parts.items()}


def peer(config, model: torch.nn.Module) -> torch.nn.Module:
    """transformers' model with the same weights, all of them."""
    from contextlm.interop.huggingface import ContextLMConfig, ContextLMForCausalLM

    content = to_huggingface_config(config, VOCAB_SIZE, 0)
    theirs = ContextLMForCausalLM(
        ContextLMConfig(**{k: v for k, v in content.items() if k not in ("dtype", "auto_map")})
    )
    weights = dict(to_huggingface("contextlm", whole(model), config, VOCAB_SIZE))
    if theirs.config.tie_word_embeddings:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    theirs.load_state_dict(weights)  # strictly
    return theirs.eval()


def distance(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("row", pairwise(), ids=name)
def test_logits_are_the_trainers(build, row):
    config = small_config(**row)
    model = build(config)
    theirs = peer(config, model)
    for length in (21, 2):
        ids = token_ids(2, length)
        with torch.no_grad():
            assert distance(theirs(ids).logits, logits(model, ids)) < BOUND


@pytest.mark.parametrize("backbone", ["gpt2", "pythia"])
def test_loss_and_gradients_are_the_trainers(build, backbone):
    config = small_config(backbone)
    model = build(config)
    theirs, ids = peer(config, model), token_ids(2, 22)
    loss = theirs(ids, labels=ids).loss
    loss.backward()
    ours = run(model, ids[:, :-1].contiguous(), ids[:, 1:].contiguous()).mean()
    ours.backward()
    assert abs(loss.item() / ours.item() - 1) < BOUND
    found = dict(to_huggingface("contextlm", whole(model, gradient=True), config, VOCAB_SIZE))
    assert {"model.context_head.gate", "model.context_head.predictor.norm.bias"} <= found.keys()
    for weight, gradient in found.items():
        assert distance(theirs.get_parameter(weight).grad, gradient) < 100 * BOUND, weight


def test_the_alignment_is_noticed(build, monkeypatch):
    """The comparison can fail: a prediction one chunk early, or a pooling that is another."""
    config, ids = small_config(), token_ids(2, 21)
    model = build(config)
    expected = logits(model, ids)
    for wrong in ({"context_shift": False}, {"context_pooling": "last"}, {"gelu": "erf"}):
        theirs = peer(small_config(**wrong), model)
        with torch.no_grad():
            assert distance(theirs(ids).logits, expected) > 100 * BOUND


@pytest.mark.parametrize("row", pairwise()[:6], ids=name)
def test_there_and_back(build, row):
    """Configuration and weights return as they were, padding aside."""
    config = small_config(**row)
    model = build(config)
    back = from_huggingface_config(json.loads(json.dumps(to_huggingface_config(config, VOCAB_SIZE, 0))), "config.json")
    assert to_huggingface_config(back, VOCAB_SIZE, 0) == to_huggingface_config(config, VOCAB_SIZE, 0)
    theirs = peer(config, model).state_dict()
    found = dict(from_huggingface("contextlm", theirs, back))
    assert found.keys() == whole(model).keys()
    for key, value in whole(model).items():
        assert torch.equal(found[key], value[:VOCAB_SIZE] if value.shape[0] > VOCAB_SIZE else value), key


@pytest.mark.parametrize("backbone", [GPT2, PYTHIA], ids=["gpt2", "pythia"])
def test_gradient_checkpointing_changes_no_gradient(backbone):
    ids, gradients = token_ids(2, 11) % 97, []
    for checkpointing in (False, True):
        model = twin(**backbone).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        output = model(ids, labels=ids)
        output.loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
        assert ("cache" in output or "past_key_values" in output) != checkpointing
    assert all(torch.allclose(gradients[0][name], gradients[1][name], rtol=1e-9) for name in gradients[0])


def test_padding_takes_no_part_in_the_loss():
    model, ids = twin(), token_ids(1, 11) % 97
    padded = torch.cat((torch.zeros(1, 3, dtype=torch.long), ids), dim=1)
    labels, mask = padded.clone(), torch.ones_like(padded)
    labels[:, :3], mask[:, :3] = -100, 0
    # The last column of padding would predict the first token: its label is shifted onto it.
    labels[:, 3] = -100
    alone, beside = model(ids, labels=ids).loss, model(padded, attention_mask=mask, labels=labels).loss
    expected = torch.nn.functional.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:]).float()
    assert torch.allclose(alone, expected) and torch.allclose(beside, expected)


def test_other_things_that_transformers_asks_for():
    model, ids = twin(), token_ids(2, 9) % 97
    output = model(ids, output_hidden_states=True)
    assert len(output.hidden_states) == 4
    assert torch.equal(model.lm_head(output.hidden_states[-1]), output.logits)
    assert torch.equal(model(ids, logits_to_keep=2).logits, output.logits[:, -2:])
    assert torch.equal(model(ids, return_dict=False)[0], output.logits)
    assert torch.equal(model(inputs_embeds=model.get_input_embeddings()(ids)).logits, output.logits)
    assert torch.equal(model(ids, position_ids=torch.arange(9)[None]).logits, output.logits)


def test_transformers_is_imported_late():
    """Only the model's files and what registers them have it among their imports; only the latter registers."""
    room = Path(contextlm.interop.__path__[0])
    eager = {
        path.name
        for path in room.rglob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ImportFrom | ast.Import) and "transformers" in ast.unparse(node).split(" import ")[0]
    }
    assert eager == {
        "huggingface.py",
        "configuration_contextlm.py",
        "cache_contextlm.py",
        "layers_contextlm.py",
        "modeling_contextlm.py",
    }
    assert [path.name for path in room.rglob("*.py") if ".register(" in path.read_text()] == ["huggingface.py"]


@pytest.mark.full  # a process that imports everything
def test_only_one_import_has_an_effect():
    code = (
        "import sys, contextlm.interop.huggingface_config, contextlm.interop.weight_names, contextlm.interop.parity\n"
        "import contextlm.interop.loaded_huggingface, tools.convert_checkpoint\n"
        "assert 'transformers' not in sys.modules\n"
        "import contextlm.interop.huggingface_model.modeling_contextlm\n"
        "from transformers.models.auto.configuration_auto import CONFIG_MAPPING\n"
        "assert 'contextlm' not in CONFIG_MAPPING\n"
        "import contextlm.interop.huggingface\n"
        "assert 'contextlm' in CONFIG_MAPPING\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
