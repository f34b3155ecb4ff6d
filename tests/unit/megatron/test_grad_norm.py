"""The gradient norm and the clip are torch's, without a tensor per parameter on the way."""

from __future__ import annotations

import pytest
import torch

SHAPES = [(7, 5), (1,), (64, 64), (3, 2, 4)]


def gradients(scale: float = 1.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [scale * torch.randn(shape, generator=generator) for shape in SHAPES]


def reference_norm(tensors: list[torch.Tensor]) -> float:
    """In fp64, over all elements at once."""
    return torch.linalg.vector_norm(torch.cat([tensor.double().flatten() for tensor in tensors])).item()


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_norm(layout, scale):
    from contextlm.megatron.grad_norm import l2_norm

    norm, per_tensor = l2_norm(0, None, [gradients(scale)], False)
    assert norm.shape == (1,) and norm.dtype == torch.float32 and per_tensor is None
    assert norm.item() == pytest.approx(reference_norm(gradients(scale)), rel=1e-6)


def test_a_gradient_that_is_not_a_number_shows(layout):
    from contextlm.megatron.grad_norm import l2_norm

    for bad in (float("nan"), float("inf")):
        tensors = gradients()
        tensors[2][0, 0] = bad
        assert not l2_norm(0, None, [tensors], False)[0].isfinite().any()


def test_scale_is_in_place(layout):
    from contextlm.megatron.grad_norm import scale

    tensors = gradients()
    places = [tensor.data_ptr() for tensor in tensors]
    scale(0, None, [tensors, tensors], 0.25)
    for tensor, place, original in zip(tensors, places, gradients(), strict=True):
        assert tensor.data_ptr() == place
        assert torch.equal(tensor, 0.25 * original)


def test_scale_refuses_to_write_elsewhere(layout):
    from contextlm.megatron.grad_norm import scale

    with pytest.raises(AssertionError):
        scale(0, None, [gradients(), gradients()], 0.25)


def test_megatron_core_uses_both(layout):
    from megatron.core.optimizer import clip_grads

    from contextlm.megatron import grad_norm

    assert clip_grads.l2_norm_impl is grad_norm.l2_norm
    assert clip_grads.multi_tensor_scale_impl is grad_norm.scale


@pytest.mark.parametrize("max_norm", [1.0, 1e6])
def test_clipping_is_torchs(layout, max_norm):
    from megatron.core.optimizer import clip_grads

    ours, theirs = ([torch.nn.Parameter(torch.zeros(shape)) for shape in SHAPES] for _ in range(2))
    for params in (ours, theirs):
        for param, gradient in zip(params, gradients(), strict=True):
            param.grad = gradient
    norm = clip_grads.get_grad_norm_fp32([param.grad for param in ours], grad_stats_parallel_group=layout.groups.mp)
    clip_grads.clip_grad_by_total_norm_fp32(ours, max_norm, norm)
    expected_norm = torch.nn.utils.clip_grad_norm_(theirs, max_norm)
    assert norm == pytest.approx(expected_norm.item(), rel=1e-6)
    for param, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(param.grad, expected.grad)
