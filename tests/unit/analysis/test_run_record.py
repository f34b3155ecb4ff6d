"""What is read from run folders, whole, unfinished and damaged ones, and which runs belong together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from contextlm.analysis.rerun import rerun_commands
from contextlm.analysis.run_history import history, skipped, state
from contextlm.analysis.run_record import read_run, read_runs
from contextlm.analysis.seed_groups import seed_groups
from contextlm.errors import UserError
from tests.unit.analysis.report_runs import finish_run, write_history, write_lines, write_run


def test_record_finds_the_continuation_and_its_options(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "contextlm")
    finish_run(folder)
    run = read_run(folder)
    assert [(change.iteration, change.options) for change in run.changes] == [
        (30, {"layout": ("TP 2 x PP 2 x DP 1", "TP 1 x PP 2 x DP 2"), "tensor_model_parallel_size": (2, 1)})
    ]
    assert run.seconds == pytest.approx(30.0)
    assert run.tokens_per_second == 8192.0 and run.mfu is None and run.slowest_to_median is None
    assert run.data_wait_share == pytest.approx(0.04) and run.peak_memory_bytes == 3 * 2**30
    assert run.loss_without_context("validation") == 4.56789
    assert read_run(write_run(tmp_path / "gpt2", chunk_size=0)).loss_without_context("validation") is None
    assert len(run.training) == 60 and len(run.evaluations) == 3
    assert run.final["validation"]["lm_loss"] == 4.05678
    assert run.notes == []


def test_a_checkpoint_that_the_tracker_does_not_name_yet_is_not_read(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "contextlm")
    (folder / "latest_checkpointed_iteration.txt").write_text("30")
    run = read_run(folder)
    assert run.changes == []
    assert run.config["tensor_model_parallel_size"] == 2


def test_history_tells_kills_faults_and_skips_in_order(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "contextlm")
    write_history(folder)
    run = read_run(folder)
    assert [(line.iteration, line.sentence, line.is_bad) for line in history(run)] == [
        (0, "began, TP 2 x PP 2 x DP 1", False),
        (None, "the job before has left no word of its end: killed, or its machine lost", True),
        (30, "continued, TP 1 x PP 2 x DP 2", False),
        (None, "failed: rank 3: out of memory (try less)", True),
        (45, "continued, TP 1 x PP 2 x DP 2", False),
        (60, "ended, as asked", False),
        (40, "skipped: the loss is NaN on rank 2", True),
    ]
    assert skipped(run) == {40: "nan loss"} and state(run) == "finished"


def test_a_run_without_an_end_is_not_called_finished(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "contextlm")
    write_history(folder)
    (folder / "exit.json").unlink()
    with (folder / "events.jsonl").open("a") as file:
        file.write('{"what": "begin", "iteration": 60}\n{"what": "rollback", "iteration": 50}\n{"what": "en')
    lines = [line for line in read_run(folder).training if line["iteration"] < 50]
    write_lines(folder / "metrics.jsonl", lines)
    run = read_run(folder)
    assert state(run) == "unfinished: still running, or killed"
    assert [line.sentence for line in history(run)][6:9] == [
        "continued", "rollback", "no end is on record: still running, or killed",
    ]  # fmt: skip
    assert run.notes[0] == "events.jsonl: 1 line(s) that cannot be read were left out"
    (folder / "exit.json").write_text(json.dumps({"status": 1, "rank": 2, "cause": "no disk"}))
    assert state(read_run(folder)) == "failed: no disk"


def test_a_start_that_was_refused_changes_nothing_of_the_run(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "contextlm")
    write_history(folder)
    refused = {"status": 1, "rank": 0, "cause": "--lrr: unknown flag"}
    for _ in range(2):
        with (folder / "events.jsonl").open("a") as file:
            file.write(json.dumps({"what": "failure"} | refused) + "\n")
        (folder / "exit.json").write_text(json.dumps(refused))
        run = read_run(folder)
        assert state(run) == "finished"
        assert history(run)[-2].sentence == "failed: rank 0: --lrr: unknown flag"
    with (folder / "events.jsonl").open("a") as file:  # the control: it began
        file.write(json.dumps({"what": "begin", "iteration": 60}) + "\n" + json.dumps({"what": "failure"} | refused))
    assert state(read_run(folder)) == "failed: --lrr: unknown flag"


def test_commands_to_rerun_are_those_that_differ(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "contextlm")
    write_history(folder)
    text = rerun_commands(read_run(folder))
    assert text.splitlines() == [
        "# contextlm:",
        "# source: commit c0ffee",
        "cd '/work here'",
        "OMP_NUM_THREADS=1 python pretrain_contextlm.py --tensor-model-parallel-size 2",
        "",
        "# contextlm, after iteration 30:",
        "# source: commit c0ffee",
        "cd '/work here'",
        "OMP_NUM_THREADS=1 python pretrain_contextlm.py --tensor-model-parallel-size 1",
    ]


def test_runs_that_differ_in_the_seed_alone_are_one_group(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / f"contextlm-seed{seed}", seed=seed) for seed in (1, 2, 3)]
    folders += [write_run(tmp_path / "plain", chunk_size=0, seed=1), write_run(tmp_path / "again", seed=1)]
    unknown = tmp_path / "unknown"
    unknown.mkdir()
    (unknown / "events.jsonl").touch()
    groups = seed_groups(read_runs([*folders, unknown]))
    assert [(group.name, [run.name for run in group.runs]) for group in groups] == [
        ("contextlm, 3 seeds", ["contextlm-seed1", "contextlm-seed2", "contextlm-seed3"]),
        ("plain", ["plain"]),
        ("again", ["again"]),  # a seed that is there already: no interval over seeds
        ("unknown", ["unknown"]),
    ]


def test_folders_of_one_name_are_told_apart_and_all_wrong_ones_are_named(tmp_path: Path) -> None:
    here, there = write_run(tmp_path / "a" / "run"), write_run(tmp_path / "b" / "run")
    assert [run.name for run in read_runs([here, there])] == ["a/run", "b/run"]
    with pytest.raises(UserError) as caught:
        read_runs([here, tmp_path / "nowhere", here, tmp_path / "neither"])
    assert caught.value.problems == (
        f"{tmp_path / 'nowhere'}: no such run folder; give the --save folder of a training run",
        f"{tmp_path / 'neither'}: no such run folder; give the --save folder of a training run",
        f"{here}: given twice",
    )
    with pytest.raises(UserError, match="no such run folder"):
        read_run(tmp_path / "nowhere")


def test_a_folder_of_something_else_is_no_run(tmp_path: Path) -> None:
    corpus, *runs = (tmp_path / name for name in ("corpus", "metrics.jsonl", "events.jsonl", "iter_0000010"))
    corpus.mkdir()
    (corpus / "corpus.jsonl").touch()
    for run in runs:  # one thing is enough
        run.mkdir()
        (run / run.name).mkdir() if run.name.startswith("iter_") else (run / run.name).touch()
    assert len(read_runs(runs)) == 3
    with pytest.raises(UserError) as caught:
        read_runs([*runs, corpus])
    assert caught.value.problems == (
        f"{corpus}: is no run's folder, which has metrics.jsonl, events.jsonl or checkpoints (iter_...); "
        "give the --save or --output-dir folder of a training run",
    )


def test_results_of_evaluations_are_found_and_other_files_are_left(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "contextlm")
    finish_run(folder)
    (folder / "diagnosis.json").write_text(
        json.dumps({"controls": {"zero": {"lm_loss": 4.2, "worth": 0.1, "worth_stderr": 0.01}}})
    )
    (folder / "other.json").write_text(json.dumps(["no result"]))
    (folder / "broken.json").write_text(json.dumps({"tasks": ["no", "dict"]}))
    run = read_run(folder)
    assert list(run.scores) == ["diagnosis.json", "evaluation.json"]
    assert run.notes == ["broken.json is no result of tools/evaluate.py"]


def test_a_diagnosis_is_not_taken_for_the_last_loss(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "contextlm")
    last = read_run(folder).final["validation"]
    (folder / "evaluation.json").write_text(json.dumps({"controls": {"zero": {"lm_loss": 4.2}}, "tokens": 9}))
    assert read_run(folder).final["validation"] == last and last["lm_loss"] > 4
