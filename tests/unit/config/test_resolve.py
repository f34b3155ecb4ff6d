"""A command line becomes one configuration, or one error with every problem."""

from __future__ import annotations

from pathlib import Path

import pytest

from contextlm.config import parse
from contextlm.config.resolve import ConfigurationError
from contextlm.errors import UserError


def problems_of(line: str, environ: dict[str, str] | None = None) -> tuple[str, ...]:
    with pytest.raises(UserError) as caught:
        parse(line.split(), environ or {})
    return caught.value.problems


def test_precedence(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("lr: 0.5\nnum_layers: 6\nmodel: gpt2-355m\n", encoding="utf-8")
    preset_only = parse(["--dry-run", "--model", "gpt2-124m"], {}).config
    assert (preset_only.model.num_layers, preset_only.optimizer.lr) == (12, 6e-4)
    over = parse(["--dry-run", "--model", "gpt2-124m", "--config", str(path), "--num-layers", "8"], {}).config
    assert (over.model.num_layers, over.optimizer.lr, over.optimizer.min_lr) == (8, 0.5, 6e-5)
    assert (over.preset, over.model.hidden_size) == ("gpt2-124m", 768), "a flag wins over the preset in the file"
    assert parse(["--dry-run", "--config", str(path)], {}).config.preset == "gpt2-355m"


def test_world_size():
    assert parse(["--dry-run"], {}).world_size is None
    assert parse(["--dry-run"], {"WORLD_SIZE": "4"}).world_size == 4
    assert parse(["--dry-run", "--world-size", "8"], {"WORLD_SIZE": "4"}).world_size == 8
    assert parse(["--dry-run"], {}).dry_run is True
    assert "is not accepted; give a whole number" in problems_of("--dry-run --world-size two")[0]
    assert "only with --dry-run" in problems_of("--world-size 2")[0]


@pytest.mark.parametrize("option", ["--dry-run", "--print-config"])
def test_what_starts_no_run_leaves_no_record_of_its_end(option: str, tmp_path: Path) -> None:
    wrong = ["--model", "gpt2-tiny", "--num-layers", "0", "--output-dir", str(tmp_path), "--data-path", "x"]
    with pytest.raises(ConfigurationError) as run:
        parse(wrong)
    with pytest.raises(ConfigurationError) as described:
        parse([*wrong, option])
    assert run.value.output_dir == str(tmp_path) and described.value.output_dir is None
