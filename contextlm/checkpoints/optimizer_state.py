"""The optimizer's state as a checkpoint holds it: one form, whichever optimizer wrote it and reads it.

megatron-core has three forms: the distributed optimizer's, the plain one's over 16-bit weights and the plain
one's over fp32 weights, which differ in nesting and in the names of the master weights. On disk there is one:

    optimizer.state.exp_avg.<weight>      in the shape of the weight, as is
    optimizer.state.exp_avg_sq.<weight>
    optimizer.state.param.<weight>        the fp32 master weight, where the weight itself has 16 bits
    param_groups, grad_scaler             plain values

so that any optimizer continues any other's run, and fp32 weights are not stored twice. Of the distributed optimizer
each rank writes and reads its own share (`optimizer_share.py`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from megatron.core.dist_checkpointing.mapping import ShardedStateDict
from megatron.core.optimizer import MegatronOptimizer
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer
from megatron.core.optimizer.optimizer import FP32Optimizer, param_group_identifier_keys

from contextlm.checkpoints.optimizer_share import share

PREFIX = "optimizer.state."
_MASTER = "param"


class OptimizerState:
    """The state of one rank's optimizer, between megatron-core's form and the one on disk.

    Args:
        optimizer: of this rank's stage.
        weights: the sharded state of its weights.
        metadata: how tensors are laid out, see `sharded_state.py`.
        is_loading: whether it is to be read rather than written.
    """

    def __init__(
        self, optimizer: MegatronOptimizer, weights: ShardedStateDict, metadata: dict[str, Any], *, is_loading: bool
    ) -> None:
        (self.optimizer,) = optimizer.chained_optimizers
        # Before the first step there is no state, and what is not saved cannot be loaded.
        self.optimizer.init_state_fn(self.optimizer.optimizer, self.optimizer.config)
        self.has_masters = self.optimizer.config.fp16 or self.optimizer.config.bf16
        if isinstance(self.optimizer, DistributedOptimizer):
            self.raw = self.optimizer.state_dict() | {"param_state": share(self.optimizer, weights, PREFIX)}
        else:
            self.raw = self.optimizer.sharded_state_dict(weights, is_loading=is_loading, metadata=metadata)

    def to_disk(self) -> ShardedStateDict:
        """What a checkpoint holds, or is asked for."""
        tensors = {name: dict(kinds) for name, kinds in self._tensors().items()}
        if not self.has_masters:
            for kinds in tensors.values():
                kinds.pop(_MASTER, None)
        groups = [{name: value for name, value in group.items() if name != "params"} for group in self._groups()]
        scaler = {"grad_scaler": self.raw["grad_scaler"]} if "grad_scaler" in self.raw else {}
        return {"param_state": tensors, "param_groups": groups, **scaler}

    def restore(self, loaded: dict[str, Any]) -> None:
        """Give the optimizer what was read for `to_disk`. fp32 weights are their own masters."""
        scaler = {"grad_scaler": loaded["grad_scaler"]} if "grad_scaler" in loaded else {}
        groups = self._own_groups(loaded["param_groups"])
        if isinstance(self.optimizer, DistributedOptimizer):  # its tensors were read where they belong
            self.optimizer.load_state_dict({"optimizer": {"param_groups": groups}} | scaler)
            return
        tensors = loaded["param_state"]
        moments = {i: {name: x for name, x in kinds.items() if name != _MASTER} for i, kinds in tensors.items()}
        inner = {"state": moments, "param_groups": groups}
        if isinstance(self.optimizer, FP32Optimizer):
            self.optimizer.load_state_dict(inner)
            return
        masters = [[tensors[i][_MASTER] for i in group["params"]] for group in groups]
        self.optimizer.load_state_dict({"optimizer": inner, "fp32_from_fp16_params": masters} | scaler)

    def _tensors(self) -> dict[Any, dict[str, Any]]:
        """The tensors by parameter (its name or, plain, its index) and kind; distributed, the parts of each."""
        if isinstance(self.optimizer, DistributedOptimizer):
            return self.raw["param_state"]
        if isinstance(self.optimizer, FP32Optimizer):
            return self.raw["state"]
        tensors = {index: dict(kinds) for index, kinds in self.raw["optimizer"]["state"].items()}
        for group, masters in zip(self._groups(), self.raw["fp32_from_fp16_params"], strict=True):
            for index, master in zip(group["params"].unwrap(), masters, strict=True):
                tensors[index][_MASTER] = replace(master, key=master.key.replace(".fp32_param.", f".{_MASTER}.", 1))
        return tensors

    def _groups(self) -> list[dict[str, Any]]:
        return (self.raw if isinstance(self.optimizer, FP32Optimizer) else self.raw["optimizer"])["param_groups"]

    def _own_groups(self, loaded: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The loaded groups in the order of this optimizer's, with its parameters."""
        byidentity = {identity(group): group for group in loaded}
        own = [byidentity[identity(group)] for group in self._groups()]
        if isinstance(self.optimizer, DistributedOptimizer):
            return own
        return [mine | {"params": g["params"].unwrap()} for mine, g in zip(own, self._groups(), strict=True)]


def identity(group: dict[str, Any]) -> tuple[Any, ...]:
    """What tells one group from another, here and in megatron-core; `optimizer.py` makes sure that it does."""
    return tuple(group[key] for key in param_group_identifier_keys)
