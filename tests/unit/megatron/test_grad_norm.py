"""The gradient norm and the clip are torch's, without a tensor per parameter on the way, and stay on the device."""

from __future__ import annotations

import pytest
import torch

SHAPES = [(7, 5), (1,), (64, 64), (3, 2, 4)]


def gradients(scale: float = 1.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [scale * torch.randn(shape, generator=generator) for shape in SHAPES]


def parameters(scale: float = 1.0) -> list[torch.nn.Parameter]:
    """Parameters that have these gradients."""
    found = [torch.nn.Parameter(torch.zeros(shape)) for shape in SHAPES]
    for parameter, gradient in zip(found, gradients(scale), strict=True):
        parameter.grad = gradient
    return found


def reference_norm(tensors: list[torch.Tensor]) -> float:
    """In fp64, over all elements at once."""
    return torch.linalg.vector_norm(torch.cat([tensor.double().flatten() for tensor in tensors])).item()


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_norm(layout, scale):
    from contextlm.megatron.grad_norm import norm

    found = norm(gradients(scale), grad_stats_parallel_group=layout.groups.mp)
    assert found.shape == () and found.dtype == torch.float64
    assert found.item() == pytest.approx(reference_norm(gradients(scale)), rel=1e-6)
    assert norm([], grad_stats_parallel_group=layout.groups.mp).item() == 0  # a rank without parameters


def test_a_gradient_that_is_not_a_number_shows(layout):
    from contextlm.megatron.grad_norm import norm

    for bad in (float("nan"), float("inf")):
        tensors = gradients()
        tensors[2][0, 0] = bad
        assert not norm(tensors, grad_stats_parallel_group=layout.groups.mp).isfinite()


def test_clipping_is_in_place(layout):
    from contextlm.megatron.grad_norm import clip

    owners = parameters()
    places = [owner.grad.data_ptr() for owner in owners]
    clip(owners, 1.0, torch.tensor(4.0, dtype=torch.float64))
    for owner, place, original in zip(owners, places, gradients(), strict=True):
        assert owner.grad.data_ptr() == place
        torch.testing.assert_close(owner.grad, 0.25 * original)


def test_a_norm_that_is_small_or_no_number_changes_no_bit(layout):
    from contextlm.megatron.grad_norm import clip

    for total in (0.0, 0.5, float("nan")):
        owners = parameters()
        clip(owners, 1.0, torch.tensor(total, dtype=torch.float64))
        assert all(torch.equal(owner.grad, original) for owner, original in zip(owners, gradients(), strict=True))


def test_megatron_core_uses_both(layout):
    from megatron.core.optimizer import clip_grads, optimizer

    from contextlm.megatron import grad_norm

    for module in (clip_grads, optimizer):
        assert module.get_grad_norm_fp32 is grad_norm.norm
        assert module.clip_grad_by_total_norm_fp32 is grad_norm.clip


def test_another_source_stops_the_start(layout, monkeypatch):
    from megatron.core.optimizer import clip_grads

    from contextlm.megatron import grad_norm
    from contextlm.megatron.rewrite import SourceChanged

    monkeypatch.setattr(clip_grads, "get_grad_norm_fp32", lambda grads: None)
    with pytest.raises(SourceChanged, match="get_grad_norm_fp32"):
        grad_norm.install()


@pytest.mark.parametrize("max_norm", [1.0, 1e6])
def test_clipping_is_torchs(layout, max_norm):
    from megatron.core.optimizer import clip_grads

    ours, theirs = parameters(), parameters()
    norm = clip_grads.get_grad_norm_fp32([param.grad for param in ours], grad_stats_parallel_group=layout.groups.mp)
    clip_grads.clip_grad_by_total_norm_fp32(ours, max_norm, norm)
    expected_norm = torch.nn.utils.clip_grad_norm_(theirs, max_norm)
    assert norm.item() == pytest.approx(expected_norm.item(), rel=1e-6)
    for param, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(param.grad, expected.grad)
