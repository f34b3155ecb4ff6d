"""Checks of recomputation: each refused value beside a neighbour that works."""

from __future__ import annotations

import pytest

from tests.unit.config.dry_problems import dry_problems

FULL, SELECTIVE = "--recompute-granularity full", "--recompute-granularity selective"
METHOD, NUM, MODULES = "--recompute-method", "--recompute-num-layers", "--recompute-modules"
PIPELINE = "--num-layers 8 --pipeline-model-parallel-size 2 --global-batch-size 4"
CHUNKS = "--num-virtual-stages-per-pipeline-rank"


@pytest.mark.parametrize(
    ("line", "fragment"),
    [
        (FULL, f"{FULL}: needs {METHOD} and {NUM}; add e.g. {METHOD} uniform {NUM} 1"),
        (f"{FULL} {METHOD} block", f"{FULL}: needs {NUM}; add"),
        (f"{FULL} {NUM} 1", f"{FULL}: needs {METHOD}; add"),
        (f"{SELECTIVE} {METHOD} block", f"{METHOD} block: only with {FULL}; add that or drop this"),
        (f"{SELECTIVE} {NUM} 1", f"{NUM} 1: only with {FULL}"),
        (f"{METHOD} uniform", f"{METHOD} uniform: only with {FULL}"),
        (f"{NUM} 2", f"{NUM} 2: only with {FULL}"),
        (f"{MODULES} mlp", f"{MODULES} mlp: only with {SELECTIVE}; add that or drop this"),
        (f"{FULL} {METHOD} block {NUM} 1 {MODULES} mlp", f"only with {SELECTIVE}"),
        (f"{FULL} {METHOD} block {NUM} 5", f"{NUM} 5: {METHOD} block takes the first of the 4 layers of a pipeline"),
        (f"{FULL} {METHOD} block {NUM} 5 {PIPELINE}", "--pipeline-model-parallel-size 2); use at most 4"),
        (f"{FULL} {METHOD} block {NUM} 3 {PIPELINE} {CHUNKS} 2", "the 2 layers of a model chunk (--num-layers 8"),
        (
            f"{FULL} {METHOD} block {NUM} 7 {PIPELINE} --decoder-last-pipeline-num-layers 2",
            "the 6 layers of a pipeline stage",
        ),
        (f"{SELECTIVE} {MODULES} core_atn", "core_atn: core_atn is no part of a layer; did you mean core_attn?"),
        (f"{SELECTIVE} {MODULES} core_attn softmax", "softmax is no part of a layer; use core_attn or mlp"),
        (f"{SELECTIVE} {MODULES} moe", "moe: not supported in ContextLM because its models have no experts; use"),
        (f"{SELECTIVE} {MODULES} moe_act", "its models have no experts"),
        (f"{SELECTIVE} {MODULES} shared_experts", "its models have no experts"),
        (f"{SELECTIVE} {MODULES} mla_up_proj", "GPT-2 and Pythia use multi-head attention; use core_attn or mlp"),
        (f"{SELECTIVE} {MODULES} layernorm", "layernorm: not supported yet; use core_attn or mlp"),
    ],
)
def test_each_mistake_has_its_sentence(line, fragment):
    (problem,) = dry_problems(line)
    assert fragment in problem


@pytest.mark.parametrize(
    "line",
    [
        f"{FULL} {METHOD} uniform {NUM} 1",
        f"{FULL} {METHOD} uniform {NUM} 3",
        f"{FULL} {METHOD} uniform {NUM} 9",
        f"{FULL} {METHOD} block {NUM} 4",
        f"{FULL} {METHOD} block {NUM} 4 {PIPELINE}",
        f"{FULL} {METHOD} block {NUM} 2 {PIPELINE} {CHUNKS} 2",
        f"{FULL} {METHOD} block {NUM} 6 {PIPELINE} --decoder-last-pipeline-num-layers 2",
        SELECTIVE,
        f"{SELECTIVE} {MODULES} mlp core_attn",
        f"{MODULES} core_attn",
    ],
)
def test_what_works_passes(line):
    assert dry_problems(line) == ()


def test_every_unknown_part_is_told():
    assert len(dry_problems(f"{SELECTIVE} {MODULES} moe core_attn softmax")) == 2


def test_no_part_at_all_is_a_mistake(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("recompute_granularity: selective\nrecompute_modules: []\n")
    assert dry_problems(f"--config {path}") == ("--recompute-modules: names nothing; use core_attn or mlp",)
