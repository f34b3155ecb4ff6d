"""YAML files: what they may say, and that a saved one reads back equal."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from contextlm.config import dump, load, parse
from contextlm.config.fields import all_fields, sections
from contextlm.config.schema import Config
from contextlm.config.yaml_file import read_yaml
from contextlm.errors import UserError


def read(tmp_path, text: str):
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return read_yaml(path, all_fields())


def changed(config: Config) -> Config:
    """Every field other than its default, so that a field lost on the way shows."""
    parts = {}
    for section in sections():
        part, new = getattr(config, section), dict[str, Any]()
        for name, field in ((n, f) for n, f in all_fields().items() if f.section == section):
            if field.choices:
                new[name] = next(choice for choice in field.choices if choice != field.default)
            elif field.kind is bool:
                new[name] = not field.default
            else:
                examples: dict[type, Any] = {int: 7, float: 0.03, str: "1e5: x # '", tuple: ("0.7", "a b", "0.3", "1")}
                new[name] = examples[field.kind]
        parts[section] = dataclasses.replace(part, **new)
    return dataclasses.replace(config, preset="contextlm-gpt2-124m", **parts)


@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize("config", [Config(), changed(Config())], ids=["defaults", "all changed"])
def test_dump_reads_back_equal(tmp_path, config, compact):
    path = tmp_path / "config.yaml"
    path.write_text(dump(config, compact=compact), encoding="utf-8")
    assert load(path) == config


def test_a_saved_file_reproduces_a_run_over_its_preset(tmp_path):
    config = parse(["--dry-run", "--model", "contextlm-pythia-70m", "--lr", "3e-4", "--num-layers", "8"]).config
    path = tmp_path / "config.yaml"
    path.write_text(dump(config), encoding="utf-8")
    assert parse(["--dry-run", "--config", str(path)]).config == config


def test_forms_of_a_file(tmp_path):
    reading = read(
        tmp_path,
        "model: contextlm-gpt2-tiny\nnum-layers: 6\noptimizer: {lr: 6e-4, min_lr: 0, adam-eps: 1e-9}\nbf16: "
        "true\n"
        "data_path: [0.7, a, 0.3, b]\nffn_hidden_size: null\nckpt_fully_parallel_save: "
        "false\ncontext_parallel_size: 1\nrampup_batch_size: [16, 8, 100]\n",
    )
    assert reading.problems == []
    assert reading.preset == "contextlm-gpt2-tiny"
    assert reading.values == {
        "num_layers": 6,
        "lr": 6e-4,
        "min_lr": 0.0,
        "adam_eps": 1e-9,
        "bf16": True,
        "data_path": ("0.7", "a", "0.3", "b"),
        "ffn_hidden_size": None,
        "rampup_batch_size": ("16", "8", "100"),
    }
    assert isinstance(reading.values["min_lr"], float)
    assert read(tmp_path, "preset: gpt2-tiny\nmodel: {num_layers: 2}\ndata_path: 0.5 a 0.5 b\n").values == {
        "num_layers": 2,
        "data_path": ("0.5", "a", "0.5", "b"),
    }
    assert read(tmp_path, "# nothing\n").problems == []


def test_all_mistakes_of_a_file_at_once(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("lr: fast\nlayers: 4\nbf16: 2\n", encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load(path)
    assert len(caught.value.problems) == 3
    with pytest.raises(UserError, match="No such file"):
        load(tmp_path / "absent.yaml")
