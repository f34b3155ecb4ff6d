"""Megatron-LM's flags: each one is ours, ignored with a warning, or refused with reason and remedy.

`megatron_flags.txt` lists the flags of core_v0.16.1's training program as argparse has them, with the number of their
words: nothing, N (one), N N N (three), N ... (one or more), [N ...] (any number), {a,b} (a choice).
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

import contextlm.config
from contextlm.config import parse
from contextlm.config.fields import all_fields
from contextlm.config.flags import PROGRAM_FLAGS, read_flags
from contextlm.config.megatron_flags import flag_verdict, refused_value
from contextlm.config.yaml_file import read_yaml
from contextlm.errors import tell_warnings

FILE = Path(contextlm.config.__file__).with_name("megatron_flags.yaml")
SORTED: dict[str, Any] = yaml.safe_load(FILE.read_text())
FIELDS = all_fields()
# Flag without its dashes -> what argparse says of its words.
ALL = {
    flag[2:]: words
    for flag, _, words in (line.partition(" ") for line in Path(__file__).with_name("megatron_flags.txt").open())
    for words in [words.strip()]
    for flag in [flag.strip()]
}
SUPPORTED = SORTED["supported"].split()
NOT_NEEDED = {flag.partition("=")[0]: entry for entry in SORTED["not_needed"] for flag in entry["flags"].split()}
REFUSED = {flag: entry for entry in SORTED["not_supported"] for flag in entry["flags"].split()}


def ours() -> set[str]:
    """Everything that may be typed, without dashes."""
    fields = FIELDS.values()
    return (
        {field.flag[2:] for field in fields}
        | {f"no-{field.flag[2:]}" for field in fields if field.kind is bool}
        | set(PROGRAM_FLAGS)
    )


def words_of(flag: str) -> list[str]:
    """As many words as Megatron-LM takes after a flag."""
    return ["5"] * (1 if ALL[flag].startswith(("{", "[")) else ALL[flag].count("N"))


def test_every_flag_of_megatron_is_sorted_once():
    found = Counter([*SUPPORTED, *NOT_NEEDED, *REFUSED])
    assert len(ALL) > 700
    assert [flag for flag, count in found.items() if count > 1] == []
    assert set(found) == set(ALL)


def test_supported_are_those_that_we_have():
    assert set(SUPPORTED) - ours() == set()
    assert (set(NOT_NEEDED) | set(REFUSED)) & ours() == set()


def test_supported_flags_take_as_many_words_as_megatrons():
    for flag in SUPPORTED:
        field = FIELDS.get(flag.replace("-", "_"))
        if field is not None:
            several = ALL[flag].endswith(("...", "...]", "N N N"))
            assert (field.kind is bool, field.kind is tuple) == (not ALL[flag], several), flag


def test_every_choice_of_a_supported_flag_is_ours_or_has_its_sentence():
    for flag in SUPPORTED:
        if match := re.match(r"\{(.*)\}", ALL[flag]):
            field = FIELDS[flag.replace("-", "_")]
            known = field.choices or ("core_attn", "mlp")
            silent = [word for word in match[1].split(",") if word not in known and not refused_value(field.name, word)]
            assert silent == [], flag


def test_what_is_refused_has_a_reason_and_a_remedy_that_exists():
    for flag in REFUSED:
        typed = " ".join([f"--{flag}", *words_of(flag)])
        (problem,) = read_flags(typed.split(), FIELDS).problems
        form = r"(.*): not supported (yet:|in ContextLM because) [^;]{10,}; [^;]{7,}"
        assert (match := re.fullmatch(form, problem)) and match[1] == typed, problem
        named = set(re.findall(r"--([a-z0-9-]+)", problem[len(typed) :])) - {"max-restarts"}  # torchrun's
        assert named - ours() == set(), problem


def test_what_is_not_needed_passes_with_a_warning():
    for flag in NOT_NEEDED:
        words = words_of(flag)
        reading = read_flags([f"--{flag}", *words, "--bf16"], FIELDS)
        assert reading.problems == [] and reading.fields == {"bf16": True}
        (warning,) = reading.warnings.values()
        assert warning.startswith(" ".join([f"--{flag}", *words]) + ": not needed, and ignored: ")


def test_what_is_not_needed_takes_as_many_words_as_in_megatron():
    for flag in NOT_NEEDED:
        assert "..." not in ALL[flag]
        for wrong in ([*words_of(flag), "5"], words_of(flag)[1:]):
            if wrong != words_of(flag):
                (problem,) = read_flags([f"--{flag}", *wrong], FIELDS).problems
                assert re.search("takes no value|takes one value|a value is missing", problem)


@pytest.mark.parametrize(
    "line",
    [
        "--context-parallel-size 1",
        "--normalization LayerNorm",
        "--optimizer adam",
        "--ckpt-format torch_dist",
        "--dataloader-type=single",
        "--attention-backend flash",
    ],
)
def test_a_value_that_asks_for_what_is_done_anyway_passes(line):
    reading = read_flags(line.split(), FIELDS)
    assert reading.problems == [] and len(reading.warnings) == 1


def test_yaml_keys_are_judged_alike(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(
        "use_mcore_models: true\nnum-workers: 4\nckpt_fully_parallel_save: false\noptimizer: {swiglu: true}\n"
    )
    reading = read_yaml(path, FIELDS)
    assert [warning.partition(": ")[2].split(":")[0] for warning in reading.warnings] == [
        "use_mcore_models",
        "num-workers",
    ]
    (problem,) = reading.problems
    assert "optimizer.swiglu: true: not supported in ContextLM because" in problem
    path.write_text("use_mcore_models: true\n")
    assert len(parse(["--dry-run", "--config", str(path), "--use-flash-attn"], {}).warnings) == 2


def test_warnings_are_told_once_by_the_first_rank(capsys, monkeypatch):
    warnings = parse("--dry-run --use-mcore-models --use-mcore-models --num-workers 2".split(), {}).warnings
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        tell_warnings(warnings)
    shown = capsys.readouterr().err.splitlines()
    assert [line.split(":")[1].strip() for line in shown] == ["--use-mcore-models", "--num-workers 2"]


def test_a_flag_of_nobody_is_not_judged():
    assert flag_verdict("zzzz", ["1"]) is None
    assert refused_value("tokenizer_type", "zzzz") is None


def test_the_file_is_read_only_when_it_is_needed(monkeypatch):
    from contextlm.config import megatron_flags

    monkeypatch.setattr(megatron_flags, "_FILE", Path("nowhere"))
    megatron_flags._file.cache_clear()
    megatron_flags._entries.cache_clear()
    parse(["--dry-run", "--lr", "1"], {})
    with pytest.raises(FileNotFoundError):
        parse(["--dry-run", "--swiglu"], {})


def test_the_file_is_installed_with_the_package():
    root = Path(__file__).resolve().parents[3]
    assert 'contextlm = ["config/*.yaml"]' in (root / "pyproject.toml").read_text()
