"""Products in 8 bits: as exact as 8 bits allow, forward and backward, and nothing that is not finite gets lost."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn.functional import cosine_similarity, linear

from contextlm.inference.opened import _alone
from contextlm.model import fp8
from contextlm.model.compilation import compile_parts
from tests.small_configs import BACKBONES, VOCAB_SIZE, small_config
from tests.unit.model.dequantised import scaled_product
from tests.unit.model.forward import logits, run, token_ids

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
METADATA = {"non_homogeneous_layers": True}
EIGHT_BITS = {"bf16": True, "fp8_format": "hybrid", "fp8_recipe": "tensorwise"}


@pytest.fixture
def fast_products(monkeypatch) -> None:
    monkeypatch.setattr(torch, "_scaled_mm", scaled_product)


@pytest.fixture
def drawn() -> tuple[torch.Tensor, ...]:
    """Input, of 34 tokens, weight, bias and gradient of the output."""
    torch.manual_seed(0)
    scales = {(2, 17, 64): 3.0, (96, 64): 0.1, (96,): 1.0, (2, 17, 96): 1e-6}
    return tuple(torch.randn(shape, dtype=torch.bfloat16) * scale for shape, scale in scales.items())


def products(function, drawn) -> list[torch.Tensor]:
    """Output, and the gradients of input, weight and bias."""
    *given, gradient = drawn
    leaves = [tensor.clone().requires_grad_() for tensor in given]
    output = function(*leaves)
    output.backward(gradient)
    return [output.detach(), *(leaf.grad for leaf in leaves)]


@pytest.mark.parametrize(("dtype", "bits"), [(E4M3, 3), (E5M2, 2)])
@pytest.mark.parametrize("size", [1e-30, 1e-3, 1.0, 1e30])
def test_what_is_rounded_is_right_to_half_a_bit(dtype, bits, size):
    matrix = torch.randn(48, 80) * size
    rounded = fp8.round_to(dtype, matrix)
    assert math.frexp(rounded.unit.item())[0] == 0.5  # a power of two
    assert torch.equal(rounded.columns.t().float(), rounded.rows.float())
    error = (rounded.rows.double() * rounded.unit.double() - matrix).abs() / matrix.abs()
    seen = matrix.abs() > matrix.abs().max() * 2.0**-13
    assert 2.0 ** -(bits + 2) < error[seen].max() <= 2.0 ** -(bits + 1)


def test_a_value_rounds_alike_beside_a_larger_one():
    matrix = torch.randn(32, 32)
    beside = torch.cat([matrix, torch.full((16, 32), 100.0)])
    alone, together = fp8.round_to(E4M3, matrix), fp8.round_to(E4M3, beside)
    kept = matrix.abs() > 100 * 2.0**-13
    numbers, the_same = (each.rows[:32].float() * each.unit for each in (alone, together))
    assert together.unit > 10 * alone.unit and torch.equal(numbers[kept], the_same[kept])
    scales = [448 / tensor.abs().max() for tensor in (matrix, beside)]  # not powers of two: another rounding
    first, second = ((matrix * scale).to(E4M3).float() / scale for scale in scales)
    assert (first - second)[kept].abs().max() > 0.01


def test_products_are_as_exact_as_eight_bits(drawn):
    """Torch's own kernel; the tokens are no multiple of 16."""
    found = products(fp8.fp8_linear, drawn)
    exact = products(linear, [tensor.double() for tensor in drawn])
    sizes = products(linear, [tensor.double().abs() for tensor in drawn])
    errors = [((a.double() - b).abs() / size).max() for a, b, size in zip(found, exact, sizes, strict=True)]
    e4m3, e5m2, bf16 = 2.0**-4, 2.0**-3, 2.0**-9
    assert errors[0] < 2 * e4m3 + e4m3**2 + bf16
    assert all(error < e4m3 + e5m2 + e4m3 * e5m2 + bf16 for error in errors[1:3])
    assert torch.equal(found[3], products(linear, drawn)[3])  # of the bias: no product
    assert all(
        cosine_similarity(a.double().flatten(), b.flatten(), 0) > 0.995 for a, b in zip(found, exact, strict=True)
    )


def test_the_fast_products_of_these_tests_are_those_of_torch(drawn, monkeypatch):
    real = products(fp8.fp8_linear, drawn)
    monkeypatch.setattr(torch, "_scaled_mm", scaled_product)
    for mine, reference in zip(products(fp8.fp8_linear, drawn), real, strict=True):
        torch.testing.assert_close(mine, reference)


@pytest.mark.parametrize("wrong", [-14, 6], ids=["too small", "too large"])
def test_a_wrong_scale_would_be_noticed(fast_products, drawn, monkeypatch, wrong):
    monkeypatch.setitem(fp8._LARGEST_EXPONENT, E4M3, 7 + wrong)
    similar = [
        cosine_similarity(a.double().flatten(), b.double().flatten(), 0)
        for a, b in zip(products(fp8.fp8_linear, drawn), products(linear, drawn), strict=True)
    ]
    assert min(similar) < 0.99


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan])
def test_nothing_infinite_gets_lost(fast_products, drawn, number):
    input_, weight, bias, gradient = drawn
    poisoned = [tensor.clone() for tensor in (input_, weight, gradient)]
    for tensor in poisoned:
        tensor.view(-1)[5] = number
    assert products(fp8.fp8_linear, (poisoned[0], weight, bias, gradient))[0].isnan().all()
    assert products(fp8.fp8_linear, (input_, poisoned[1], bias, gradient))[0].isnan().all()
    _, of_input, of_weight, of_bias = products(fp8.fp8_linear, (input_, weight, bias, poisoned[2]))
    assert of_input.isnan().all() and of_weight.isnan().all() and not of_bias.isfinite().all()


def test_zeros_stay_zeros(fast_products, drawn):
    zeros = [torch.zeros_like(tensor) for tensor in drawn]
    assert all(not tensor.any() for tensor in products(fp8.fp8_linear, zeros))


def losses_and_gradients(model: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    tokens = token_ids(4, 33)
    model.train().zero_grad()
    losses = run(model, tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())
    losses.mean().backward()
    return losses.detach().float(), {name: p.grad.float().flatten() for name, p in model.named_parameters()}


def bf16_model(build, backbone: str, **values: object) -> Any:
    model = build(small_config(backbone, **values)).bfloat16()
    with torch.no_grad():  # logits of about 1, as after a little training
        model.embedding.word_embeddings.weight *= 0.25
    return model


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_model_is_that_of_bf16(build, fast_products, backbone):
    losses, gradients = losses_and_gradients(bf16_model(build, backbone, bf16=True))
    model = bf16_model(build, backbone, **EIGHT_BITS)
    in_8_bits = [name for name, module in model.named_modules() if type(module).__name__.startswith("Fp8")]
    assert len(in_8_bits) == 4 * (4 + 2) and not any("output_layer" in name for name in in_8_bits)
    found, found_gradients = losses_and_gradients(model)
    assert 1e-4 < (found - losses).abs().mean() < 0.1  # it does round
    assert (found.mean() - losses.mean()).abs() < 5e-3
    similar = {name: cosine_similarity(found_gradients[name], gradients[name], 0) for name in gradients}
    assert min(similar.values()) > 0.95, similar
    whole, expected = (torch.cat(list(each.values())) for each in (found_gradients, gradients))
    assert cosine_similarity(whole, expected, 0) > 0.98


def changes_before(model: Any, length: int = 33) -> list[float]:
    """By how much later tokens move logits before them, relative to the largest, for some first changed positions."""
    tokens = token_ids(2, length)
    before, found = logits(model.eval(), tokens), []
    for s in range(1, length, 2):
        changed = tokens.clone()
        changed[:, s:] = (changed[:, s:] + 1) % VOCAB_SIZE
        after = logits(model, changed)
        assert (after[:, s:] - before[:, s:]).abs().max() > 0.1 * before.abs().max()
        found.append(float((after[:, :s] - before[:, :s]).abs().max() / before.abs().max()))
    return found


def plainly_rounded(dtype: torch.dtype, matrix: torch.Tensor, with_sums: bool = False) -> fp8.Rounded:
    """With the scale that most take, no power of two."""
    scale = torch.finfo(dtype).max / matrix.abs().max().float()
    rows = (matrix.float() * scale).to(dtype)
    return fp8.Rounded(rows, rows.t().contiguous(), 1 / scale, matrix.sum(0))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_later_tokens_all_but_leave_earlier_ones_alone(build, fast_products, monkeypatch, backbone):
    model = build(small_config(backbone, **EIGHT_BITS)).bfloat16()
    moved = changes_before(model)
    assert sum(change > 0 for change in moved) <= 2 and max(moved) < 0.01, moved
    monkeypatch.setattr(fp8, "round_to", plainly_rounded)
    moved = changes_before(model)
    assert sum(change > 0 for change in moved) > 10 and max(moved) > 0.02, moved


def test_the_tools_do_not_round():
    alone = _alone(small_config(**EIGHT_BITS), "none")
    assert alone.training.bf16 == torch.cuda.is_available() and not alone.fp8


def test_it_is_stored_as_any_other(build):
    plain, model = (build(small_config(bf16=True)), build(small_config(**EIGHT_BITS)))
    stored, expected = (
        {part.key: (part.global_shape, part.dtype) for part in each.sharded_state_dict(metadata=METADATA).values()}
        for each in (model, plain)
    )
    assert stored == expected and len(stored) > 50


@pytest.mark.parametrize(
    ("unit", "backend", "num_layers"),
    [
        ("model", "eager", 1),
        pytest.param("model", "aot_eager", 3, marks=pytest.mark.full),
        pytest.param("layer", "aot_eager", 3, marks=pytest.mark.full),
    ],
)
def test_compiled_it_is_the_same_without_a_break(build, fast_products, compile_with, unit, backend, num_layers):
    model = bf16_model(build, "gpt2", **EIGHT_BITS, num_layers=num_layers, context_predictor_layers=num_layers - 1)
    expected, expected_gradients = losses_and_gradients(model)
    compile_with(backend)
    compile_parts([model], unit)  # a break is an error
    losses, gradients = losses_and_gradients(model)
    torch.testing.assert_close(losses, expected)
    for name, gradient in expected_gradients.items():
        torch.testing.assert_close(gradients[name], gradient, msg=name)
