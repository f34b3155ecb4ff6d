"""The study file: what it becomes, and that every mistake in it is told at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from contextlm.comparison.study import read_study
from contextlm.errors import UserError
from tests.unit.comparison.studies import study_tree, write_study

ROOT = Path(__file__).resolve().parents[3]


def problems(folder: Path, **changes: object) -> list[str]:
    path = write_study(folder, study_tree() | changes)
    with pytest.raises(UserError) as raised:
        read_study(path)
    return [problem.removeprefix(f"{path}: ") for problem in raised.value.problems]


def test_arms_are_configurations_with_their_budgets(tmp_path: Path) -> None:
    study = read_study(write_study(tmp_path, study_tree()), text="corpus.jsonl")
    assert study.name == "tiny" and study.seeds == (1, 2, 3) and study.source.text == "corpus.jsonl"
    plain, gated, deeper = study.arms.values()
    assert not plain.config.context.enabled and gated.config.context.context_chunk_size == 4
    assert deeper.config.model.num_layers == 6 and deeper.of == "gated" and deeper.match is not None
    assert plain.parameters < deeper.parameters and gated.parameters - deeper.parameters == 2 * 128 + 1
    assert plain.flops_per_token < gated.flops_per_token < deeper.flops_per_token


def test_every_mistake_at_once(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        seed=[1],
        data={"txt": "a.jsonl"},
        tokenizer={"vocab_size": "many"},
        flags=study_tree()["flags"] | {"lr": "fast", "save": "x"},
        arms={
            "plain": {},
            "gated": {"context_chunk_sise": 4, "seed": 1},
            "deeper": {"match": "parms", "of": "gatd", "by": "hight"},
            "half": {"match": "params"},
        },
        seeds=[1, 1, 2],
        baselines=["plan"],
    )
    expected = (
        "seed: unknown key; did you mean seeds?",
        "data.txt: unknown key; did you mean text?",
        "tokenizer.vocab_size: 'many' is no size; give a whole number >= 1",
        "flags.save: the study sets it for each run",
        "flags: --lr: fast is not accepted; give a number",
        "arms.gated: --context-chunk-sise: unknown flag; did you mean --context-chunk-size?",
        "arms.gated.seed: the study sets it for each run; drop it (see seeds)",
        "arms.deeper.match: 'parms' is not known; did you mean params?",
        "arms.deeper.of: 'gatd' is not known; did you mean gated?",
        "arms.deeper.by: 'hight' is not known; use one of depth, width, mlp",
        "arms.half: match, of and by go together",
        "seeds: [1, 1, 2]: an interval needs at least 3 different ones",
        "baselines: plan: no such arm; did you mean plain?",
    )
    missing = [start for start in expected if not any(problem.startswith(start) for problem in found)]
    assert missing == [] and len(found) == len(expected), found


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"arms": {"plain": {}, "long": {"train_iters": 9}}}, "arms.long: train-iters 9, but plain has 4; all arms"),
        ({"arms": {"plain": {}, "wide": {"seq_length": 9}}}, "arms.wide: seq-length 9, but plain has 64; all arms"),
        ({"flags": {"model": "gpt2-tiny"}}, "flags: --train-iters is missing"),
        ({"flags": study_tree()["flags"] | {"split": "1,0,0"}}, "flags: no validation loss to compare"),
        ({"flags": study_tree()["flags"] | {"eval_iters": 0}}, "flags: no validation loss to compare"),
        ({"arms": {"plain": {}}}, "arms: give at least two"),
        ({"data": {"text": "a.jsonl", "prefix": "b"}}, "data: text and prefix are both given"),
        ({"data": {"prefix": "b"}}, "tokenizer.vocab_size: data.prefix is tokenized"),
        ({"tokenizer": {}}, "tokenizer: give vocab_size"),
        ({"tokenizer": {"tokenizer_type": "SentencePieceTokenizer"}}, "tokenizer: --tokenizer-model: missing"),
        ({"baselines": []}, "baselines: give the arms"),
        ({"tokenizer": {"vocab_size": True}}, "tokenizer.vocab_size: True is no size; give a whole number >= 1"),
        ({"tokenizer": {"tokenizer_type": ["x"]}}, "tokenizer.tokenizer_type: ['x'] is no text; put it in quotes"),
        ({"data": {"text": ["a"]}}, "data.text: ['a'] is no text; put it in quotes"),
        ({"flags": {"train_iters": {"many": 4}}}, "flags.train_iters: {'many': 4} is no value; give a word"),
        ({"flags": {"lr": "--help"}}, "flags.lr: '--help' is no value; give a word"),
        ({"flags": {"rampup_batch_size": [1, "-h"]}}, "flags.rampup_batch_size: [1, '-h'] is no value; give a word"),
        ({"flags": {"train-iters": 4, "train_iters": 4}}, "flags.train_iters: is given twice, with a dash and without"),
        ({"flags": {"match": "params"}}, "flags.match: says what one arm is matched to; move it there"),
        ({"arms": {"a": 5, "b": {}}}, "arms.a: 5 is not a mapping"),
        ({"arms": {"a": {}, "b": {"match": "params", "of": ["a"], "by": "depth"}}}, "arms.b.of: ['a'] is not known"),
        ({"seeds": "all"}, "seeds: 'all': an interval needs"),
        ({"seeds": [1, 2, "3"]}, "seeds: [1, 2, '3']: give whole numbers"),
    ],
)  # fmt: skip
def test_one_mistake(tmp_path: Path, changes: dict[str, object], sentence: str) -> None:
    found = problems(tmp_path, **changes)
    assert any(problem.startswith(sentence) for problem in found), found


@pytest.mark.parametrize("name", ["help", "print-config", "dry_run", "world_size", "data_args_path", "config"])
def test_no_flag_ends_the_study(tmp_path: Path, name: str) -> None:
    """`--help` alone would print itself and exit with status 0."""
    found = problems(tmp_path, flags=study_tree()["flags"] | {name: True})
    assert found == [f"flags.{name.replace('-', '_')}: the study sets it for each run; drop it"]


@pytest.mark.parametrize("name", ["../../x/y", "..", ".", "", "a/b", "/tmp", "a b", ".hidden"])
def test_an_arm_is_no_path(tmp_path: Path, name: str) -> None:
    """Its name becomes a folder that is removed when the study changes."""
    (problem,) = problems(tmp_path, arms=study_tree()["arms"] | {name: {}})
    assert problem == f"arms.{name}: is no name of a folder; use letters, digits, _ and ."


def test_a_matched_arm_is_not_a_target(tmp_path: Path) -> None:
    arms = study_tree()["arms"] | {"chain": {"match": "flops", "of": "deeper", "by": "mlp"}}
    assert problems(tmp_path, arms=arms) == ["arms.chain.of: deeper is itself matched to another arm; name that one"]


def test_what_is_given_twice_is_no_silent_choice(tmp_path: Path) -> None:
    path = write_study(tmp_path, study_tree())
    path.write_text(path.read_text().replace("  gated:\n", "  plain: {}\n  gated:\n"))
    with pytest.raises(UserError, match=r"arms.plain: is given twice \(lines 10 and 11\); keep one"):
        read_study(path)


def test_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("a: [")
    (tmp_path / "list.yaml").write_text("- 1")
    for name, sentence in (("no.yaml", "give a study file"), ("bad.yaml", "not valid YAML"), ("list.yaml", "no keys")):
        with pytest.raises(UserError, match=sentence):
            read_study(tmp_path / name)


@pytest.mark.parametrize("path", sorted((ROOT / "examples" / "studies").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_studies_of_the_project(path: Path) -> None:
    study = read_study(path)
    assert len(study.seeds) >= 3
    for arm in study.arms.values():
        settings = arm.config
        assert settings.optimizer.lr_warmup_iters * 10 == settings.training.train_iters >= 3000
        assert arm.match is None or abs(arm.match.residual) < 0.005
