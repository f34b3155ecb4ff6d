"""The tool tells what a checkpoint holds, what is damaged and how two differ, from the files alone."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest

from contextlm.megatron.safe_loading import read_index
from tools.inspect_checkpoint import main

NAME = "iter_0000020"
WEIGHT = "decoder.final_layernorm.weight"


@pytest.fixture
def folder(twenty_steps: Path, tmp_path: Path) -> Path:
    """A copy of a finished run's last checkpoint, to harm."""
    return shutil.copytree(twenty_steps / NAME, tmp_path / NAME)


@pytest.fixture
def inspect(capsys: pytest.CaptureFixture[str]):
    """Call the tool; returns its exit status and what it prints."""

    def inspect(*words: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main([str(word) for word in words])
        printed = capsys.readouterr()
        assert isinstance(left.value.code, int)
        return left.value.code, printed.out, printed.err

    return inspect


def place(folder: Path, name: str) -> Any:
    return next(place for key, place in read_index(folder).storage_data.items() if key.fqn == name)


def test_what_it_holds(twenty_steps: Path, inspect) -> None:
    status, printed, _ = inspect(twenty_steps, "--json", "--tensors", "--verify")
    found = json.loads(printed)
    assert status == 0 and found["problems"] == [] and "as they were written" in found["verification"]
    assert found["checkpoint"] == str(twenty_steps / NAME) and found["run"]["iteration"] == 20
    assert found["options"]["model.hidden_size"] == 64
    assert list(found["parts"]) == ["backbone", "head", "optimizer", "rng"]
    tensors = {tensor["name"]: tensor for tensor in found["tensors"]}
    assert sum(part["bytes"] for part in found["parts"].values()) == sum(x["bytes"] for x in tensors.values())
    weights = found["parts"]["backbone"]["values"] + found["parts"]["head"]["values"]
    assert found["parts"]["optimizer"]["values"] == 2 * weights  # fp32: two moments, and no masters
    assert tensors[WEIGHT]["shape"] == [64] and tensors[WEIGHT]["dtype"] == "float32" and tensors[WEIGHT]["files"]
    status, printed, _ = inspect(twenty_steps, "--tensors")
    assert status == 0 and WEIGHT in printed and "not verified" in printed


def test_its_tensors_are_not_read(folder: Path, inspect) -> None:
    for file in folder.glob("*.distcp"):
        file.write_bytes(b"")
    assert inspect(folder, "--tensors")[0] == 0


def test_damage_is_named(folder: Path, inspect) -> None:
    file = folder / place(folder, WEIGHT).relative_path
    file.write_bytes(file.read_bytes()[:-1] + b"\x77")
    (folder / "contextlm_tokenizer.json").unlink()
    status, printed, told = inspect(folder, "--verify")
    assert status == 1 and "damaged: 2 problem(s)" in printed
    assert f"{file.name} has another sha256" in told and "contextlm_tokenizer.json is missing" in told
    assert inspect(folder)[0] == 0
    (folder / "common.pt").unlink()
    status, _, told = inspect(folder)
    assert status == 1 and "common.pt is missing" in told
    (folder / ".metadata").write_bytes(b"cposix\nsystem\n")
    status, _, told = inspect(folder)
    assert status == 1 and "execute code" in told


def test_two_that_are_equal_and_two_that_are_not(twenty_steps: Path, folder: Path, inspect, recwarn) -> None:
    status, printed, _ = inspect("--diff", twenty_steps, folder, "--json")
    assert [str(warning.message) for warning in recwarn if "torch.distributed" in str(warning.message)] == []
    found = json.loads(printed)
    assert status == 0 and found["num_equal"] > 50 and not found["values"] and not found["options"]

    stored = place(folder, WEIGHT)
    content = bytearray((folder / stored.relative_path).read_bytes())
    # 1.0 in most places of a norm's weight after 20 iterations: its highest bits are 3f.
    spot = content.index(b"\x3f", stored.offset + stored.length // 2)
    content[spot] = 0xBF
    (folder / stored.relative_path).write_bytes(content)
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(config.replace("lr: 0.003", "lr: 0.004"))
    index = read_index(folder)
    index.state_dict_metadata.pop("context_head.gate")
    (folder / ".metadata").write_bytes(pickle.dumps(index))

    status, printed, _ = inspect("--diff", twenty_steps, folder, "--json")
    changed = json.loads(printed)
    assert status == 1 and changed["options"] == {"optimizer.lr": [0.003, 0.004]}
    assert changed["only_first"] == ["context_head.gate"] and changed["only_second"] == []
    assert list(changed["values"]) == [WEIGHT] and changed["values"][WEIGHT] == pytest.approx(2, rel=0.1)
    assert changed["num_equal"] == found["num_equal"] - 2
    status, printed, _ = inspect("--diff", twenty_steps, folder)
    assert status == 1 and WEIGHT in printed and "optimizer.lr" in printed
    status, _, told = inspect("--diff", twenty_steps, folder, "--verify")
    assert status == 1 and "config.yaml" in told and twenty_steps.name not in told


def test_mistakes(tmp_path: Path, twenty_steps: Path, inspect) -> None:
    assert inspect(tmp_path)[::2] == (1, f"error: {tmp_path}: holds no checkpoint; give a folder that --save made\n")
    assert "two with --diff" in inspect("--diff", twenty_steps)[2]
