"""Each rank writes and reads its own share of the distributed optimizer's state, and files are megatron-core's.

See contextlm/checkpoints/optimizer_share.py; what it does with one weight is in tests/unit/checkpoints.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.distributed import optimizer_share_cases as cases
from tests.distributed.layouts import LAYOUTS
from tests.distributed.pool import Pool
from tests.distributed.resume_cases import train, weights_and_moments

FULL = ("TP2 SP x DP2", "PP2 interleaved x DP2", "PP2 of 3 + 1 layers")
# A tied embedding has a bucket of its own on several stages, and megatron-core's form stands one bucket only.
UNTIED = {"untie_embeddings_and_output_weights": True}


@pytest.mark.parametrize("ours", [True, False])
@pytest.mark.parametrize(
    ("layout", "precision"),
    [
        ("DP2", "bf16"),
        pytest.param("DP2", "fp32", marks=pytest.mark.full),
        pytest.param("PP2 x DP2", "bf16", marks=pytest.mark.full),  # with the tied embedding on both stages
    ],
)
def test_saved_state_is_what_is_in_memory(pool: Pool, tmp_path: Path, layout: str, precision: str, ours: bool) -> None:
    """With several buckets, which end with padding: megatron-core's own form does not stand that, in silence."""
    world_size, parallel = LAYOUTS[layout]
    values = parallel | {"bf16": precision == "bf16"}
    ranks = pool.run(cases.save_with_small_buckets, world_size, folder=str(tmp_path), values=values, ours=ours)
    (stored,) = pool.run(weights_and_moments, 1, folder=str(tmp_path), values={})
    compared, wrong = Counter[str](), set()
    for kind, key, start, shard in (entry for shards, _ in ranks for entry in shards):
        # fp32 weights are their own masters, and stored once.
        place = key if precision == "fp32" and kind == "param" else f"optimizer.state.{kind}.{key}"
        saved = stored["tensors"][place].ravel()[start : start + len(shard)]
        assert len(saved) == len(shard), place
        compared[kind] += len(shard)
        if not np.array_equal(saved, shard):
            wrong.add(kind)
    elements = sum(count for _, count in ranks) // 2  # two ranks share the state of a stage
    assert compared == dict.fromkeys(cases.KINDS, elements)
    # NVIDIA/Megatron-LM 5077, a positive control for the comparison.
    gathered = {"exp_avg", "exp_avg_sq"} | ({"param"} if precision == "bf16" else set())
    assert wrong == (set() if ours else gathered)


@pytest.mark.parametrize("layout", ["DP2", *(pytest.param(name, marks=pytest.mark.full) for name in FULL)])
def test_files_are_those_of_megatron_core(pool: Pool, tmp_path: Path, layout: str) -> None:
    """Each reads what the other wrote and goes on as if nothing had been."""
    world_size, parallel = LAYOUTS[layout]
    more = {"bf16": True, "train_iters": 3, "micro_batch_size": 1}
    arguments = {"values": cases.BATCH | parallel | more | (UNTIED if "PP" in layout else {})}
    ways = {"ours": train, "theirs": cases.train_in_form_of_megatron_core}
    (*_, whole) = pool.run(train, world_size, folder=None, steps=3, **arguments)
    stored = {}
    for way, function in ways.items():
        folder = str(tmp_path / way)
        pool.run(function, world_size, folder=folder, steps=1, **arguments)
        (found,) = pool.run(weights_and_moments, 1, folder=folder, values={})
        stored[way] = found["tensors"]
    assert stored["ours"].keys() == stored["theirs"].keys()
    assert all(np.array_equal(stored["ours"][key], stored["theirs"][key]) for key in stored["ours"])
    assert sum(key.startswith("optimizer.state.param.") for key in stored["ours"]) > 10
    for written, reads in (("ours", "theirs"), ("theirs", "ours")):
        values = arguments["values"] | {"load": str(tmp_path / written)}
        (*_, then) = pool.run(ways[reads], world_size, folder=None, steps=2, values=values)
        assert then == whole[1:], f"{reads} of {written}"


def test_a_rank_copies_its_own_share_to_save(pool: Pool, tmp_path: Path) -> None:
    """Of 12 bytes a parameter, two ranks with copies of the model hold 6 each; gathered, every one holds them all."""
    arguments = {"folder": str(tmp_path), "values": {"bf16": True}}
    for size, needed in pool.run(cases.bytes_to_save, 2, ours=True, **arguments):
        assert needed == pytest.approx(6 * size, rel=0.01)
    for size, needed in pool.run(cases.bytes_to_save, 2, ours=False, **arguments):
        assert needed > 11.9 * size
