"""The plain models are Hugging Face's GPT-2 and GPT-NeoX: the same weights give the same logits."""

from __future__ import annotations

import pytest
import torch

from contextlm.errors import UserError
from contextlm.interop.huggingface_weights import from_huggingface, name_in_file, to_huggingface
from tests.distributed.parity_cases import parity_logits
from tests.small_configs import VOCAB_SIZE, small_config
from tests.unit.model.forward import token_ids

transformers = pytest.importorskip("transformers")

LAYERS, HIDDEN, HEADS, LENGTH = 3, 64, 4, 33
MODEL_TYPES = {"gpt2": "gpt2", "pythia": "gpt_neox"}
TOLERANCE = 2e-5  # of the largest logit


def peer(backbone: str) -> torch.nn.Module:
    """Hugging Face's model with random weights."""
    if backbone == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=VOCAB_SIZE,
            n_layer=LAYERS,
            n_embd=HIDDEN,
            n_head=HEADS,
            n_positions=LENGTH,
            bos_token_id=0,
            eos_token_id=0,
        )
        model = transformers.GPT2LMHeadModel(config)
    else:
        config = transformers.GPTNeoXConfig(
            vocab_size=VOCAB_SIZE,
            num_hidden_layers=LAYERS,
            hidden_size=HIDDEN,
            num_attention_heads=HEADS,
            intermediate_size=4 * HIDDEN,
            max_position_embeddings=LENGTH,
        )
        model = transformers.GPTNeoXForCausalLM(config)
    generator = torch.Generator().manual_seed(5)
    for name, parameter in model.named_parameters():
        is_gain = parameter.dim() == 1 and "weight" in name
        with torch.no_grad():
            parameter.copy_(is_gain + 0.15 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def plain(backbone: str, **values):
    """Our configuration of the same model."""
    return small_config(
        backbone,
        num_layers=LAYERS,
        hidden_size=HIDDEN,
        num_attention_heads=HEADS,
        seq_length=LENGTH,
        context_chunk_size=0,
        **values,
    )


def difference(layout, model: torch.nn.Module, config, backbone: str, halved: str | None = None) -> float:
    """The largest difference of logits, as a share of the largest logit."""
    weights = dict(from_huggingface(MODEL_TYPES[backbone], model.state_dict(), config))
    if halved is not None:
        weights[halved] = weights[halved] / 2
    ids_BS = token_ids(2, LENGTH)
    with torch.no_grad():
        theirs = model(ids_BS).logits
    return ((parity_logits(layout, config, weights, ids_BS) - theirs).abs().max() / theirs.abs().max()).item()


@pytest.mark.parametrize("backbone", MODEL_TYPES)
def test_logits_are_hugging_faces(layout, backbone):
    assert difference(layout, peer(backbone), plain(backbone), backbone) < TOLERANCE


@pytest.mark.parametrize(("backbone", "wrong"), [("gpt2", "erf"), ("pythia", "tanh")])
def test_the_other_gelu_is_noticed(layout, backbone, wrong):
    assert difference(layout, peer(backbone), plain(backbone, gelu=wrong), backbone) > TOLERANCE


@pytest.mark.parametrize("backbone", MODEL_TYPES)
def test_each_kind_of_weight_is_noticed(layout, backbone):
    """A row of the table that was wrong would show: a change of any weight does."""
    model, config = peer(backbone), plain(backbone)
    names = [name for name, _ in from_huggingface(MODEL_TYPES[backbone], model.state_dict(), config) if ".1." in name]
    assert len(names) == 12
    for name in names:
        assert difference(layout, model, config, backbone, halved=name) > TOLERANCE, name


@pytest.mark.parametrize("backbone", MODEL_TYPES)
def test_there_and_back(backbone):
    model_type, model = MODEL_TYPES[backbone], peer(backbone)
    ours = dict(from_huggingface(model_type, model.state_dict(), plain(backbone)))
    padded = {
        name: torch.cat((value, torch.ones(125, HIDDEN))) if value.shape[0] == VOCAB_SIZE else value
        for name, value in ours.items()
    }
    back = dict(to_huggingface(model_type, padded, plain(backbone), VOCAB_SIZE))
    expected = {name_in_file(model_type, name): value for name, value in model.state_dict().items()}
    assert back.keys() == expected.keys() - ({"lm_head.weight"} if backbone == "gpt2" else set())  # tied
    for name, value in back.items():
        assert torch.equal(value, expected[name]), name


def test_our_keys_are_those_of_a_checkpoint(build):
    for backbone, model_type in MODEL_TYPES.items():
        model = build(plain(backbone))
        keys = {part.key for part in model.sharded_state_dict(metadata={"non_homogeneous_layers": True}).values()}
        assert set(dict(from_huggingface(model_type, peer(backbone).state_dict(), plain(backbone)))) == keys


def test_names_of_other_files_are_understood():
    """OpenAI's own GPT-2 files have no prefix; older files hold causal masks and angles."""
    model = peer("gpt2")
    bare = {
        name.removeprefix("transformer."): value for name, value in model.state_dict().items() if "lm_head" not in name
    }
    bare["h.0.attn.bias"] = torch.ones(1, 1, LENGTH, LENGTH)
    expected = dict(from_huggingface("gpt2", model.state_dict(), plain("gpt2")))
    actual = dict(from_huggingface("gpt2", bare, plain("gpt2")))
    assert actual.keys() == expected.keys() and all(torch.equal(actual[name], expected[name]) for name in expected)


def test_weights_that_do_not_fit_are_refused_together(build):
    weights = peer("gpt2").state_dict()
    weights["transformer.h.0.extra"] = weights.pop("transformer.wpe.weight")
    with pytest.raises(UserError) as error:
        dict(from_huggingface("gpt2", weights, plain("gpt2")))
    assert "transformer.wpe.weight: is missing" in str(error.value)
    assert "transformer.h.0.extra: has no place" in str(error.value)

    untied = peer("gpt2").state_dict()
    untied["lm_head.weight"] = untied["lm_head.weight"] + 1
    with pytest.raises(UserError, match="lm_head.weight differs"):
        dict(from_huggingface("gpt2", untied, plain("gpt2")))

    with_head = dict(from_huggingface("gpt2", peer("gpt2").state_dict(), plain("gpt2"))) | {
        "context_head.gate": torch.ones(1)
    }
    with pytest.raises(UserError, match="context_head.gate: has no place"):
        dict(to_huggingface("gpt2", with_head, plain("gpt2"), VOCAB_SIZE))
