"""YAML files: what they may say, and that a saved one reads back equal."""

from __future__ import annotations

import dataclasses

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
        part, new = getattr(config, section), {}
        for name, field in ((n, f) for n, f in all_fields().items() if f.section == section):
            if field.choices:
                new[name] = next(choice for choice in field.choices if choice != field.default)
            elif field.kind is bool:
                new[name] = not field.default
            else:
                new[name] = {int: 7, float: 0.03, str: "1e5: x # '", tuple: ("0.7", "a b", "0.3", "1")}[field.kind]
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
        "data_path: [0.7, a, 0.3, b]\nffn_hidden_size: null\nasync_save: "
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


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("num_layers: 1.5", "num_layers: 1.5 is not a whole number >= 1"),
        ("num_layers: 4.0", "num_layers: 4.0 is not a whole number"),
        ("num_layers: true", "num_layers: True is not a whole number"),
        ("num_layers: '4'", "num_layers: '4' is not a whole number"),
        ("num_layers: null", "num_layers: None is not a whole number"),
        ("lr: .nan", "lr: nan is out of range"),
        ("lr: fast", "lr: 'fast' is not a number > 0"),
        ("bf16: 'yes'", "bf16: 'yes' is not true or false"),
        ("bf16: 1", "bf16: 1 is not true or false"),
        ("save: 5", "save: 5 is not text"),
        ("gelu: tan", "gelu: 'tan' is not one of tanh, erf (did you mean tanh?)"),
        ("model: {num_layer: 4}", "model.num_layer: unknown key; did you mean num_layers?"),
        ("optimiser: {lr: 1}", "optimiser: unknown key; did you mean optimizer?"),
        ("model: {lr: 1.0}", "model.lr: belongs to the section optimizer"),
        ("async_save: true", "async_save: True: not supported yet"),
        ("rampup_batch_size: 16", "rampup_batch_size: 16 is not a list of words"),
        ("model: {num_layers: 4, num_layers: 5}", "num_layers is given twice (lines 1 and 1)"),
        ("lr: 1\nlr: 2", "lr is given twice (lines 1 and 2)"),
        ("lr: 1\noptimizer: {lr: 1}", "optimizer.lr: lr is given twice"),
        ("num-layers: 4\nnum_layers: 4", "num_layers is given twice"),
        ("model: gpt2-tiny\npreset: gpt2-124m", "the preset is given twice"),
        ("model: [1]", "model: [1] is not a section"),
        ("- 1", "holds no keys"),
        ("a: [", "not valid YAML"),
        ("a: !!python/object/apply:os.system ['true']", "not valid YAML"),
    ],
)
def test_each_mistake_has_its_sentence(tmp_path, text, fragment):
    (problem,) = read(tmp_path, text).problems
    assert fragment in problem
    assert "run.yaml" in problem


def test_all_mistakes_of_a_file_at_once(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("lr: fast\nlayers: 4\nbf16: 2\n", encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load(path)
    assert len(caught.value.problems) == 3
    with pytest.raises(UserError, match="No such file"):
        load(tmp_path / "absent.yaml")
