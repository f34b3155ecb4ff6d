"""The file of --data-config: what it becomes, and every mistake in it, all at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from contextlm.config import dump, load, parse
from contextlm.config.data_config import read_data_config
from contextlm.errors import UserError
from tests.unit.config.test_wrong_command_lines import says_what_to_do


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    for name in ("a", "b", "c", "0.5"):
        for suffix in (".bin", ".idx"):
            Path("data", name + suffix).touch()
    return tmp_path


def read(text: str) -> dict:
    Path("data/blend.yaml").write_text(text)
    return read_data_config("data/blend.yaml")


def config(text: str, *more: str):
    Path("data/blend.yaml").write_text(text)
    return parse(["--dry-run", "--data-config", "data/blend.yaml", *more], {}).config


WEIGHTED = "datasets:\n  - {path: a, weight: 0.7}\n  - {path: b, weight: 3e-1}\n"
SPLITS = "train: [a, b]\nvalid:\n  - path: c\ntest:\n  - {path: c, weight: 2}\n"


def test_datasets_with_weights_and_a_split() -> None:
    assert read(WEIGHTED + "split: 98,2,0\n") == {"data_path": ("0.7", "data/a", "3e-1", "data/b"), "split": "98,2,0"}
    assert read(WEIGHTED + "split: [98, 2, 0]\n")["split"] == "98,2,0"
    assert read("datasets: [a, b]\n") == {"data_path": ("data/a", "data/b")}


def test_paths_are_relative_to_the_file(folder: Path) -> None:
    assert read(f"datasets: [a, {folder}/data/b, ../data/c]")["data_path"] == (
        "data/a", f"{folder}/data/b", "data/../data/c",
    )  # fmt: skip
    Path("here.yaml").write_text("datasets: [{path: '0.5', weight: 1}]")
    assert read_data_config("here.yaml")["data_path"] == ("1", "./0.5")  # a name, not a weight


def test_splits_of_their_own() -> None:
    found = config(SPLITS).data
    assert found.train_data_path == ("data/a", "data/b") and found.valid_data_path == ("data/c",)
    assert found.test_data_path == ("2", "data/c") and found.data_path == () and found.per_split


@pytest.mark.parametrize("text", [WEIGHTED, WEIGHTED + "split: 90,5,5\n", SPLITS, "valid: [c]"])
def test_the_printed_configuration_is_the_same_run(text: str) -> None:
    found = config(text)
    Path("printed.yaml").write_text(dump(found))
    assert load("printed.yaml") == found
    assert parse(["--dry-run", "--config", "printed.yaml"], {}).config == found


def test_it_is_a_flag_that_wins_over_the_yaml_file() -> None:
    Path("run.yaml").write_text("train_data_path: [data/c]\nsplit: 1,1,1\n")
    assert config("datasets: [a]", "--config", "run.yaml").data == config("datasets: [a]", "--split", "1,1,1").data
    assert config(SPLITS, "--config", "run.yaml").data == config(SPLITS).data
    Path("run.yaml").write_text("data_path: 7\n")  # what is replaced is still read, and must be right
    with pytest.raises(UserError, match="data_path: 7 is not accepted"):
        config(WEIGHTED, "--config", "run.yaml")


MISTAKES = {
    "": "holds no datasets; write",
    "[a, b]": "holds no datasets; write",
    "a: [": "not valid YAML: .*; mend line 1",
    "\x00": "not valid YAML",
    "split: 1,1,1": "split: divides `datasets`, which are not there; drop it",
    "datasets: [a]\ndatasets: [b]": "datasets: is given twice .lines 1 and 2.; keep one",
    "dataset: [a]": "dataset: unknown key; did you mean datasets",
    "zzzzzz: 1": "zzzzzz: unknown key; use datasets, train, valid, test, split",
    "datasets: [a]\ntrain: [b]": "datasets and train: .*; keep one",
    "train: [a]\nsplit: 1,1,1": "split: divides `datasets`",
    "datasets:": "datasets: null is no list of datasets; write",
    "datasets: []": r"datasets: \[\] is no list",
    "datasets: a": "datasets: 'a' is no list",
    "datasets: {a: 1}": "is no list of datasets",
    "datasets: [1]": "datasets, entry 1: 1 is no dataset",
    "datasets: [[a]]": r"datasets, entry 1: \['a'\] is no dataset",
    "datasets: [{weight: 1}]": "datasets, entry 1: path: is missing",
    "datasets: [{path: 5}]": "datasets, entry 1: path: 5 is no text",
    "datasets: ['']": "datasets, entry 1: path: '' is no text",
    "datasets: [{path: a, wieght: 1}]": "datasets, entry 1: wieght: unknown key",
    "datasets: [{path: a, weight: 1}, {path: b}]": "datasets, entry 2: has no weight, but others have",
    "datasets: [{path: a, weight: 0}]": "datasets, entry 1: weight 0 is not a positive number",
    "datasets: [{path: a, weight: -1}]": "weight -1 is not",
    "datasets: [{path: a, weight: .nan}]": "weight nan is not",
    "datasets: [{path: a, weight: .inf}]": "weight inf is not",
    "datasets: [{path: a, weight: yes}]": "weight true is not",
    "datasets: [{path: a, weight: much}]": "weight 'much' is not",
    "datasets: [{path: a, weight: null}]": "weight null is not",
    "datasets: [a]\nsplit: 98": "split: 98 is not three numbers",
    "valid: [a]\ntest: [{path: a, weight: [1]}]": r"test, entry 1: weight \[1\] is not",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_mistakes(text: str) -> None:
    with pytest.raises(UserError, match=MISTAKES[text]) as error:
        read(text)
    for problem in error.value.problems:
        assert problem.startswith("--data-config data/blend.yaml: ") and says_what_to_do(problem), problem


def test_all_mistakes_at_once() -> None:
    text = "datasets: [{path: a, weight: -1}, {path: 3}, 7]\ntrain: {}\nsplit: 5\nseed: 1\n"
    with pytest.raises(UserError) as error:
        config(text, "--data-path", "data/a", "--test-data-path", "data/b", "--num-layers", "0")
    said = "\n".join(error.value.problems)
    for piece in (
        "--data-path is given too", "--test-data-path is given too", "entry 1: weight -1", "entry 2: path: 3",
        "entry 3", "train: {} is no list", "split: 5", "seed: unknown key", "datasets and train", "--num-layers: 0",
    ):  # fmt: skip
        assert piece in said, (piece, said)


@pytest.mark.parametrize(
    ("text", "more", "message"),
    [
        ("datasets: [a]", "--data-path data/b", "--data-config .*: --data-path is given too; keep one of the two"),
        ("datasets: [a]", "--data-args-path x", "--data-args-path is given too"),
        ("datasets: [a]\nsplit: 1,1,1", "--split 1,1,1", "--split 1,1,1: --data-config .* has a split too"),
        ("datasets: [a, none]", "", "data/none.bin and data/none.idx not found"),
        ("datasets: [a, a]", "", "data/a is given more than once"),
        ("datasets: [a]\nsplit: 1,2", "", "--split 1,2: 2 numbers"),
        ("train: [a]", "--split 1,1,1", "--split 1,1,1: divides --data-path, but --train-data-path"),
        ("train: [a]", "--full-validation", "--full-validation: --valid-data-path is missing; give"),
        ("datasets: [a]\nsplit: 1,0,0", "--full-validation", "--split 1,0,0 leaves nothing for validation; give"),
    ],
)
def test_what_does_not_go_together(text: str, more: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        config(text, *more.split())


def test_a_file_that_is_not_there_or_no_text() -> None:
    with pytest.raises(UserError, match="--data-config no.yaml: No such file or directory; give an existing YAML file"):
        read_data_config("no.yaml")
    Path("binary.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(UserError, match="is no UTF-8 text; give a YAML file"):
        read_data_config("binary.yaml")


def test_the_example_is_a_blend() -> None:
    example = Path(__file__).parents[3] / "examples" / "blend.yaml"
    found = read_data_config(str(example))
    assert found["split"] == "98,2,0" and len(found["data_path"]) == 6
    per_split = [line[2:] for line in example.read_text().split("to its size.\n#\n")[1].splitlines()]
    Path("own.yaml").write_text("\n".join(per_split))
    assert set(read_data_config("own.yaml")) == {"train_data_path", "valid_data_path", "test_data_path"}
