"""What the trackers' own packages have written can be read back, across a stop; each skips where it is absent."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from contextlm.training.trackers import Trackers
from tests.small_configs import small_config

pytestmark = pytest.mark.full


def stop_and_resume(**values: str) -> None:
    """Iterations 1 and 2, resumed after the first: 2 again and an evaluation, then a failure."""
    said: list[str] = []
    for iteration, failed in ((0, False), (1, True)):
        trackers = Trackers(small_config(**values), iteration, said.append)
        for n in range(iteration + 1, 3):
            trackers.log({"iteration": n, "lm_loss": 5.0 - n})
        if failed:
            trackers.log({"iteration": 2, "split": "validation", "lm_loss": 7.0})
        trackers.close(failed=failed)
    assert said == []


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    stop_and_resume(tensorboard_dir=str(tmp_path))
    found = EventAccumulator(str(tmp_path)).Reload()
    assert [(x.step, x.value) for x in found.Scalars("training/lm_loss")] == [(1, 4.0), (2, 3.0)]
    assert [(x.step, x.value) for x in found.Scalars("validation/lm_loss")] == [(2, 7.0)]


def test_mlflow(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    place = f"sqlite:///{tmp_path}/mlflow.db"
    stop_and_resume(mlflow_experiment="ours", mlflow_tracking_uri=place, output_dir=str(tmp_path))
    client = mlflow.MlflowClient(place)
    (run,) = client.search_runs([client.get_experiment_by_name("ours").experiment_id])
    assert run.info.status == "FAILED" and run.data.params["lr"] == str(small_config().optimizer.lr)
    history = client.get_metric_history(run.info.run_id, "training/lm_loss")
    assert sorted({(x.step, x.value) for x in history}) == [(1, 4.0), (2, 3.0)]
    assert run.data.metrics["validation/lm_loss"] == 7.0


def test_weights_and_biases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    stop_and_resume(wandb_project="ours", output_dir=str(tmp_path))
    first, second = (_wandb_records(path) for path in sorted(tmp_path.rglob("run-*.wandb"), key=_written))
    (name,) = json.loads((tmp_path / "trackers.json").read_text()).values()
    assert [ids for ids, _, _ in (first, second)] == [{name}, {name}]
    assert [codes for _, _, codes in (first, second)] == [[0], [1]]
    assert first[1] == [(1, {"training/lm_loss": 4.0}), (2, {"training/lm_loss": 3.0})]
    assert second[1] == [(2, {"training/lm_loss": 3.0}), (2, {"validation/lm_loss": 7.0})]


def _written(path: Path) -> float:
    return path.stat().st_mtime


def _wandb_records(path: Path) -> tuple[set[str], list[tuple[int, dict[str, float]]], list[int]]:
    """Names of the run, iterations with their values, and exit codes in one of W&B's own files."""
    from wandb.proto.wandb_internal_pb2 import Record

    names, rows, codes = set(), [], []
    for data in _log_records(path.read_bytes()):
        record = Record.FromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            names.add(record.run.run_id)
        elif kind == "exit":
            codes.append(record.exit.exit_code)
        elif kind == "history":
            row = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            rows.append((row["iteration"], {key: value for key, value in row.items() if "/" in key}))
    return names, rows, codes


def _log_records(content: bytes) -> Iterator[bytes]:
    """The records of a log as LevelDB writes it, after W&B's mark of 7 bytes: blocks of 32 KiB, records in pieces."""
    place, whole = 7, b""
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768  # too little for a header: zeros
            continue
        length, kind = struct.unpack_from("<HB", content, place + 4)
        whole += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole one, or the last piece
            yield whole
            whole = b""
