"""Our fused AdamW is torch's AdamW, and its state survives saving and loading."""

from __future__ import annotations

import copy

import pytest
import torch

SHAPES: dict[str, list[tuple[int, ...]]] = {"decayed": [(7, 5), (33,)], "not_decayed": [(5,), (1,)], "slow": [(4, 4)]}
SETTINGS = {
    "decayed": {"weight_decay": 0.1, "lr": 0.01},
    "not_decayed": {"weight_decay": 0.0, "lr": 0.01},
    "slow": {"weight_decay": 0.05, "lr": 0.001},
}
BETAS, EPS = (0.9, 0.95), 1e-8


@pytest.fixture
def fused(layout):
    """Our class; the module imports megatron-core's optimizers, so it is imported here."""
    from contextlm.megatron.adamw import FusedAdamW

    return FusedAdamW


def parameters(seed: int = 0) -> dict[str, list[torch.nn.Parameter]]:
    generator = torch.Generator().manual_seed(seed)
    return {
        group: [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
        for group, shapes in SHAPES.items()
    }


def groups(params: dict[str, list[torch.nn.Parameter]]) -> list[dict]:
    return [{"params": members, **SETTINGS[name]} for name, members in params.items()]


def flat(params: dict[str, list[torch.nn.Parameter]]) -> list[torch.nn.Parameter]:
    return [param for members in params.values() for param in members]


def step(optimizer, params: dict[str, list[torch.nn.Parameter]], number: int) -> None:
    """One update with gradients that depend on the step's number alone."""
    generator = torch.Generator().manual_seed(1000 + number)
    for param in flat(params):
        param.grad = torch.randn(param.shape, generator=generator)
    optimizer.step()


def test_twenty_steps_are_torchs(fused):
    ours, theirs = parameters(), parameters()
    start = [param.detach().clone() for param in flat(ours)]
    mine = fused(groups(ours), betas=BETAS, eps=EPS)
    reference = torch.optim.AdamW(groups(theirs), betas=BETAS, eps=EPS)
    for number in range(20):
        step(mine, ours, number)
        step(reference, theirs, number)
    for param, expected, before in zip(flat(ours), flat(theirs), start, strict=True):
        torch.testing.assert_close(param, expected, rtol=1e-5, atol=1e-6)
        assert not torch.allclose(param, before, rtol=1e-3)


def test_each_step_is_counted_once_whatever_the_number_of_groups(fused):
    params = parameters()
    optimizer = fused(groups(params))
    for number in range(3):
        step(optimizer, params, number)
    assert [int(group["step"]) for group in optimizer.param_groups] == [3, 3, 3]
    assert len({id(group["step"]) for group in optimizer.param_groups}) == 1


def test_state_is_two_moments_and_an_integer_step(fused):
    params = parameters()
    optimizer = fused(groups(params))
    step(optimizer, params, 0)
    state = optimizer.state_dict()
    assert [group["step"] for group in state["param_groups"]] == [1, 1, 1]
    assert all(type(group["step"]) is int for group in state["param_groups"])
    assert all(set(entry) == {"exp_avg", "exp_avg_sq"} for entry in state["state"].values())
    # Taking the state must not turn the live tensors into integers.
    assert all(isinstance(group["step"], torch.Tensor) for group in optimizer.param_groups)
    step(optimizer, params, 1)
    assert int(optimizer.param_groups[0]["step"]) == 2


def test_a_loaded_state_continues_bit_for_bit(fused):
    params = parameters()
    optimizer = fused(groups(params), betas=BETAS)
    for number in range(5):
        step(optimizer, params, number)
    saved = copy.deepcopy(optimizer.state_dict())
    resumed_params = {
        name: [torch.nn.Parameter(p.detach().clone()) for p in members] for name, members in params.items()
    }
    resumed = fused(groups(resumed_params), betas=BETAS)
    resumed.load_state_dict(saved)
    assert len({id(group["step"]) for group in resumed.param_groups}) == 1
    for number in range(5, 10):
        step(optimizer, params, number)
        step(resumed, resumed_params, number)
    assert [int(group["step"]) for group in resumed.param_groups] == [10, 10, 10]
    for param, expected in zip(flat(resumed_params), flat(params), strict=True):
        assert torch.equal(param, expected)


def test_a_lost_step_count_would_show(fused):
    """What a resume without the step does: the bias correction starts anew."""
    params = parameters()
    optimizer = fused(groups(params), betas=BETAS)
    for number in range(5):
        step(optimizer, params, number)
    saved = copy.deepcopy(optimizer.state_dict())
    for group in saved["param_groups"]:
        group["step"] = 0
    resumed_params = {
        name: [torch.nn.Parameter(p.detach().clone()) for p in members] for name, members in params.items()
    }
    resumed = fused(groups(resumed_params), betas=BETAS)
    resumed.load_state_dict(saved)
    step(optimizer, params, 5)
    step(resumed, resumed_params, 5)
    assert not torch.allclose(flat(resumed_params)[0], flat(params)[0])


def test_a_step_that_the_device_leaves_out_changes_no_bit(fused):
    """From gradients that are no numbers; the next one is as if there had been none."""
    params, reference = parameters(), parameters()
    optimizer, undisturbed = fused(groups(params)), fused(groups(reference))
    for number in range(3):
        optimizer.found_inf = torch.tensor(0.0)
        step(optimizer, params, number)
        step(undisturbed, reference, number)
        for param in flat(params):
            param.grad.fill_(float("nan"))
        optimizer.found_inf = torch.tensor(1.0)
        optimizer.step()
    assert int(optimizer.param_groups[0]["step"]) == 3
    for param, expected in zip(flat(params), flat(reference), strict=True):
        assert torch.equal(param, expected)
        for moment in ("exp_avg", "exp_avg_sq"):
            assert torch.equal(optimizer.state[param][moment], undisturbed.state[expected][moment])
    optimizer.found_inf = torch.tensor(0.0)
    optimizer.step()
    assert flat(params)[0].isnan().all()  # the control


def test_groups_that_count_differently_are_refused(fused):
    optimizer = fused(groups(parameters()))
    state = optimizer.state_dict()
    state["param_groups"][1]["step"] = 7
    with pytest.raises(ValueError, match=r"different steps in its groups: \[0, 7\]"):
        optimizer.load_state_dict(state)


def test_parameters_without_gradient_or_elements_are_left_alone(fused):
    """A data-parallel rank may hold no element of a parameter."""
    still, moving, empty = (
        torch.nn.Parameter(torch.ones(3)),
        torch.nn.Parameter(torch.ones(3)),
        torch.nn.Parameter(torch.ones(0)),
    )
    optimizer = fused([still, moving, empty])
    moving.grad, empty.grad = torch.ones(3), torch.ones(0)
    optimizer.step()
    assert torch.equal(still, torch.ones(3)) and not torch.equal(moving, torch.ones(3))
    assert set(optimizer.state) == {moving}


def test_megatron_core_builds_it(layout, fused):
    """Weight decay is off for biases, norms and the gate, and no state of torch's AdamW is left."""
    from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig

    from contextlm.model.builder import build_model
    from contextlm.training.optimizer import apply_schedule, build_optimizer
    from tests.small_configs import VOCAB_SIZE, small_config

    config = small_config(weight_decay=0.1)
    (model,) = build_model(config, VOCAB_SIZE, layout.groups)
    wrapped = DistributedDataParallel(
        model.config,
        DistributedDataParallelConfig(grad_reduce_in_fp32=True, use_distributed_optimizer=True),
        model,
    )
    optimizer = build_optimizer(config, [wrapped])
    inner = [part.optimizer for part in optimizer.chained_optimizers]
    assert all(type(part) is fused for part in inner)
    apply_schedule(config, optimizer, 1)
    sizes = {0.0: 0, 0.1: 0}
    for part in inner:
        for group in part.param_groups:
            sizes[group["weight_decay"]] += sum(param.numel() for param in group["params"])
    not_decayed = sum(param.numel() for param in model.parameters() if param.dim() == 1)
    assert sizes == {0.0: not_decayed, 0.1: sum(param.numel() for param in model.parameters()) - not_decayed}
