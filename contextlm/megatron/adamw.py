"""AdamW whose state megatron-core's distributed optimizer can save and resume.

What is wrong: without Transformer Engine and apex megatron-core takes `torch.optim.AdamW`
(optimizer/__init__.py:32), unfused, which keeps `step` per parameter where the distributed optimizer's
saved state has it per group: a resume dies or counts steps wrongly.
Also wrong: whether to leave an update out megatron-core asks on the host (`found_inf.item()`,
optimizer/optimizer.py:501), and in fp16 only; in bf16 and fp32 a NaN reaches the weights.
The mend: an optimizer of ours with ONE step tensor for all groups, which leaves an update out where the device says so.
It is installed under the names through which megatron-core recognises a fused Adam, in place of Transformer Engine's
or apex's too: every run leaves out alike.
Test: tests/unit/megatron/test_adamw.py, tests/cli/test_resume.py, tests/distributed/test_skipped_updates.py.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from megatron.core import optimizer as megatron_optimizer
from megatron.core.optimizer import distrib_optimizer

from contextlm.megatron.kept_kernels import KeptKernels

if TYPE_CHECKING:
    from contextlm.megatron.adamw_kernel import AdamWKernel, Parameter
    from contextlm.megatron.blocks import Blocks

# torch's own methods without their marks for torch._dynamo, which the first call of a marked one imports: a second.
_ADD_PARAM_GROUP, _STATE_DICT, _LOAD_STATE_DICT = (
    inspect.unwrap(method)
    for method in (
        torch.optim.Optimizer.add_param_group,
        torch.optim.Optimizer.state_dict,
        torch.optim.Optimizer.load_state_dict,
    )
)


class FusedAdamW(torch.optim.Optimizer):
    """AdamW (Loshchilov and Hutter, 2019) on torch's fused kernel; on CUDA on one of ours (`adamw_kernel.py`).

    `exp_avg` and `exp_avg_sq` are the only state of a parameter. `group["step"]` is one 1-element fp32 tensor
    shared by all groups; on disk it is an int.

    Args:
        params: parameters or parameter groups.
        lr, betas, eps, weight_decay: AdamW's; `weight_decay` is scaled by a group's own value where it has one.
        adam_w_mode: must be True (megatron-core passes it to a fused Adam).

    Attributes:
        found_inf: scalar, fp32, on the device, for the next steps: 1 leaves parameters, moments and step as they are,
            bit for bit; 0 or None updates.
        gradient_scale: scalar, fp32, on the device: our kernel multiplies gradients by it; torch's knows none.
        weights: the 16-bit weights of fp32 parameters, which our kernel writes with them.
        owners: the 16-bit parameters in whose `grad` autograd leaves the gradients of fp32 ones; empty where they are
            copied to `grad` of these.
    """

    found_inf: torch.Tensor | None = None
    gradient_scale: torch.Tensor | None = None

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        adam_w_mode: bool = True,
    ) -> None:
        assert adam_w_mode, "L2-regularised Adam is not offered"
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self._share_step(0)
        self.weights: dict[torch.Tensor, torch.Tensor] = {}
        self.owners: dict[torch.Tensor, torch.Tensor] = {}
        self._kernels = KeptKernels(_adamw_kernel, sets=len(self.param_groups))

    @property
    def has_own_kernel(self) -> bool:
        """Whether it scales gradients and writes 16-bit weights."""
        return self.param_groups[0]["step"].is_cuda

    def gradient(self, parameter: torch.Tensor) -> torch.Tensor | None:
        """The gradient of a parameter of this optimizer, perhaps in 16 bits, if there is one."""
        return self.owners.get(parameter, parameter).grad

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters."""
        _ADD_PARAM_GROUP(self, param_group)

    def _share_step(self, step: int | torch.Tensor) -> None:
        """Give all groups one and the same step tensor."""
        devices = {p.device for group in self.param_groups for p in group["params"]}
        device = devices.pop() if devices else torch.cuda.current_device()  # a rank's share may be padding alone
        shared = torch.zeros(1, dtype=torch.float32, device=device)
        shared += step if isinstance(step, int) else step.to(device)
        for group in self.param_groups:
            group["step"] = shared

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One AdamW update of every parameter that has a gradient, unless `found_inf` says no."""
        step, found_inf = self.param_groups[0]["step"], self.found_inf
        step += 1 if found_inf is None else 1 - found_inf
        for group in self.param_groups:
            params = [p for p in group["params"] if self.gradient(p) is not None and p.numel() > 0]
            if not params:
                continue
            for p in params:
                if not self.state[p]:
                    self.state[p]["exp_avg"] = torch.zeros_like(p)
                    self.state[p]["exp_avg_sq"] = torch.zeros_like(p)
            beta1, beta2 = group["betas"]
            if self.has_own_kernel:
                scale = torch.ones_like(step) if self.gradient_scale is None else self.gradient_scale
                skip = torch.zeros_like(step) if found_inf is None else found_inf
                settings = group["lr"], (beta1, beta2), group["eps"], group["weight_decay"]
                self._kernel(params).update(step, scale, skip, *settings)
                continue
            assert self.gradient_scale is None and not self.weights
            torch._fused_adamw_(
                params,
                [p.grad for p in params],
                [self.state[p]["exp_avg"] for p in params],
                [self.state[p]["exp_avg_sq"] for p in params],
                [],
                [step] * len(params),
                lr=group["lr"],
                beta1=beta1,
                beta2=beta2,
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                amsgrad=False,
                maximize=False,
                found_inf=found_inf,
            )

    def _kernel(self, params: list[torch.Tensor]) -> AdamWKernel:
        """The kernel of a group."""
        from contextlm.megatron.adamw_kernel import Parameter  # Triton comes with torch for CUDA

        gradients = [gradient for p in params if (gradient := self.gradient(p)) is not None]
        return self._kernels(
            [
                Parameter(gradient, p, self.state[p]["exp_avg"], self.state[p]["exp_avg_sq"], self.weights.get(p))
                for gradient, p in zip(gradients, params, strict=True)
            ]
        )

    def state_dict(self) -> dict[str, Any]:
        """The state, with the step as an int: a tensor would be stored once per group."""
        state = _STATE_DICT(self)
        for group in state["param_groups"]:
            group["step"] = int(group["step"])
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state, and share one step tensor again: torch copies the groups one by one."""
        _LOAD_STATE_DICT(self, state_dict)
        steps = {int(group["step"]) for group in self.param_groups}
        if len(steps) != 1:
            raise ValueError(f"the optimizer state counts different steps in its groups: {sorted(steps)}")
        self._share_step(steps.pop())


def _adamw_kernel(parameters: Sequence[Parameter], blocks: Blocks) -> AdamWKernel:
    from contextlm.megatron.adamw_kernel import AdamWKernel  # Triton comes with torch for CUDA

    return AdamWKernel(parameters, blocks)


def install() -> None:
    """Make megatron-core build `FusedAdamW`; calling it again changes nothing."""
    megatron_optimizer.Adam = FusedAdamW
    megatron_optimizer.USING_PYTORCH_OPTIMIZER = False
    distrib_optimizer.Adam = FusedAdamW
    distrib_optimizer.HAVE_APEX_OR_TE = True
    distrib_optimizer.USING_APEX_OPTIMIZER = True
