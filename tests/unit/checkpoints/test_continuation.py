"""A run that continues shows which of its options are not the checkpoint's, and is refused where that is fatal."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from contextlm.checkpoints import continuation
from contextlm.checkpoints.checkpoint_folder import CONFIG_FILE, RUN_FILE
from contextlm.config.yaml_file import dump
from contextlm.errors import UserError
from tests.small_configs import small_config

BATCHES = {"global_batch_size": 2, "micro_batch_size": 2}


class Continued:
    """A checkpoint, and what is said of runs that continue it."""

    def __init__(self, folder: Path, **values: Any) -> None:
        self.folder, self.values = folder, BATCHES | values
        run = {
            "world_size": 1,
            "global_batch_size": 2,
            "consumed_samples": 20,
            "data_fingerprint": "data",
            "tokenizer_fingerprint": "tokenizer",
        }
        (folder / CONFIG_FILE).write_text(dump(small_config(**self.values)))
        (folder / RUN_FILE).write_text(json.dumps(run))

    def by(self, *, data: str | None = "data", tokenizer: str = "tokenizer", **values: Any) -> list[list[str]]:
        """[class, option and its values] of each line that is shown."""
        said: list[str] = []
        datasets: Any = SimpleNamespace(train=data, fingerprint=data)
        words: Any = SimpleNamespace(fingerprint=tokenizer)
        config = small_config(**(self.values | values))
        try:
            continuation.check(self.folder, config, 1, words, datasets, said.append)
        finally:
            self.shown = [line.strip().split("  ", 1) for line in said[1:]]
            self.shown = [[kind, words.strip()] for kind, words in self.shown]
        return self.shown

    def problems(self, **values: Any) -> tuple[str, ...]:
        """Why a run is refused."""
        with pytest.raises(UserError) as caught:
            self.by(**values)
        return caught.value.problems


@pytest.fixture
def continued(tmp_path: Path) -> Continued:
    return Continued(tmp_path)


def test_nothing_is_said_where_nothing_changed(continued: Continued) -> None:
    assert continued.by(save="x", load="x") == [["safe", "--save none -> x"]]
    assert continued.by(load="x", finetune=True) == []


def test_safe_ones(continued: Continued) -> None:
    found = continued.by(lr=2e-3, global_batch_size=4, train_iters=9, tensor_model_parallel_size=1, save_interval=7)
    assert found == [
        ["safe", "--global-batch-size 2 -> 4"],
        ["safe", "--lr 0.0006 -> 0.002"],
        ["safe", "--lr-decay-iters 5 -> 9"],  # follows from the next
        ["safe", "--save-interval none -> 7"],
        ["safe", "--train-iters 5 -> 9"],
    ]


def test_a_batch_size_that_follows_from_the_processes_is_kept(continued: Continued) -> None:
    (problem,) = continued.problems(micro_batch_size=1, global_batch_size=None)
    assert "give --global-batch-size 2 to go on with it, or 1 to change it" in problem


def test_what_changes_the_data_order(continued: Continued) -> None:
    assert continued.by(seed=7, seq_length=34, split="9,1,0", max_position_embeddings=66, data="other") == [
        ["changes the data order", "--seed 1234 -> 7"],
        ["changes the data order", "--seq-length 66 -> 34"],
        ["changes the data order", "--split none -> 9,1,0"],
    ]


def test_data_that_was_moved_is_the_same_and_data_that_was_replaced_is_not(continued: Continued) -> None:
    assert continued.by(data_path=("moved",)) == [["safe", "--data-path none -> moved"]]
    (line,) = continued.by(data="other")
    assert line[0] == "changes the data order" and line[1].startswith("--data-path the checkpoint's files ->")
    assert continued.by(data=None) == []  # nothing is trained


def test_fatal_ones_need_leave_and_are_named_all_at_once(continued: Continued) -> None:
    changed = {"adam_beta2": 0.99, "hidden_dropout": 0.1, "context_stop_gradient": True, "seed": 7, "data": "other"}
    problems = continued.problems(**changed)
    assert [problem.split(":")[0] for problem in problems] == [
        "--adam-beta2 0.99",
        "--context-stop-gradient True",
        "--hidden-dropout 0.1",
    ]
    assert "has 0.95, and the moments of AdamW were averaged with it" in problems[0]
    assert problems[0].endswith("go on with --allow-changed-options adam-beta2")
    assert [kind for kind, _ in continued.shown] == ["fatal"] * 3 + ["changes the data order"]
    leave = ("adam-beta2", "hidden-dropout", "context-stop-gradient")
    found = continued.by(**changed, allow_changed_options=leave)
    assert [kind for kind, _ in found] == ["fatal, but allowed"] * 3 + ["changes the data order"]
    assert len(continued.problems(**changed, allow_changed_options=leave[:2])) == 1


def test_for_another_model_or_tokenizer_no_leave_is_given(continued: Continued) -> None:
    every = ("adam-beta2", "hidden-dropout")
    problems = continued.problems(context_pooling="last", num_layers=6, tokenizer="x", allow_changed_options=every)
    text = "\n".join(problems)
    assert len(problems) == 4  # the depth of the encoder follows from that of the model
    assert "--context-pooling last" in text and "--num-layers 6" in text and "another tokenizer" in text
    assert ["fatal", "--num-layers 4 -> 6"] in continued.shown
    assert ["fatal", "--tokenizer-model the checkpoint's -> another under the same name"] in continued.shown
    assert continued.by(tokenizer_model="moved.json") == [["safe", "--tokenizer-model none -> moved.json"]]


def test_precision(tmp_path: Path) -> None:
    continued = Continued(tmp_path, bf16=True)
    leave = {"allow_changed_options": ("bf16", "fp16")}
    assert len(continued.problems(bf16=False, fp16=True)) == 2
    assert len(continued.by(bf16=False, fp16=True, **leave)) == 2
    (problem,) = continued.problems(bf16=False, **leave)
    assert "only 16-bit training has fp32 master weights" in problem


def test_a_model_without_what_the_other_has_is_compared(tmp_path: Path) -> None:
    plain = Continued(tmp_path, context_chunk_size=0, position_embedding_type="rope")
    (first, second) = plain.problems(context_chunk_size=4, position_embedding_type="learned_absolute")
    assert "--position-embedding-type" in first and "--context-chunk-size" in second
