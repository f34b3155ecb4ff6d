"""Trackers get the numbers of metrics.jsonl in the order of its lines, and none of them stops a run.

The packages are stand-ins with the same functions; none of the three is needed to run this.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from contextlm.analysis.measures import Evaluation
from contextlm.training.log_line import evaluation_line
from contextlm.training.trackers import Trackers, numbers
from tests.small_configs import small_config

TRAINING = {"iteration": 3, "lm_loss": 2.5, "mfu": None, "gate": 0.25}
EVALUATION = {"iteration": 3, "split": "validation", "lm_loss": 2.0, "lm_loss_by_position": (1.0, 3.0)}
NUMBERS = [
    {"training/lm_loss": 2.5, "training/gate": 0.25},
    {"validation/lm_loss": 2.0, "validation/lm_loss_by_position/0": 1.0, "validation/lm_loss_by_position/1": 3.0},
]
FLAGS = {"tensorboard_dir": "tb", "wandb_project": "ours", "mlflow_experiment": "ours"}


class Calls:
    """Notes every call of every method, by any name."""

    def __init__(self) -> None:
        self.made: list[tuple[str, Any, Any]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: self.made.append((name, args, kwargs))

    def of(self, name: str) -> list[tuple[Any, Any]]:
        return [(args, kwargs) for called, args, kwargs in self.made if called == name]


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> dict[str, Calls]:
    """Stand-ins that are imported in place of the three packages."""
    writer, wandb_run, wandb, mlflow = Calls(), Calls(), Calls(), Calls()
    vars(wandb_run)["id"] = "w1"
    info = SimpleNamespace(run_id="m1")
    vars(mlflow)["start_run"] = lambda **kwargs: mlflow.made.append(("start", (), kwargs)) or SimpleNamespace(info=info)
    opened = lambda *args, **kwargs: writer.made.append(("open", args, kwargs)) or writer  # noqa: E731
    init = lambda **kwargs: wandb.made.append(("init", (), kwargs)) or wandb_run  # noqa: E731
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=opened))
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    return {"writer": writer, "wandb": wandb, "wandb_run": wandb_run, "mlflow": mlflow}


def test_each_gets_every_number_in_order(packages: dict[str, Calls], tmp_path: Path) -> None:
    out, warnings = str(tmp_path), list[str]()
    config = small_config(**FLAGS, wandb_exp_name="first", output_dir=out, mlflow_tracking_uri="http://x")
    trackers = Trackers(config, 2, warnings.append)
    for line in (TRAINING, EVALUATION):
        trackers.log(line)
    trackers.close(failed=False)
    assert warnings == []
    assert packages["writer"].of("open") == [(("tb",), {"purge_step": 3})]
    assert [args for args, _ in packages["writer"].of("add_scalar")] == [
        (name, value, 3) for values in NUMBERS for name, value in values.items()
    ]
    assert len(packages["writer"].of("close")) == 1
    ((_, init),) = packages["wandb"].of("init")
    assert (init["project"], init["name"], init["dir"]) == ("ours", "first", out)
    assert init["config"]["optimizer"]["lr"] == config.optimizer.lr
    assert packages["wandb_run"].of("log") == [(({"iteration": 3} | values,), {}) for values in NUMBERS]
    assert packages["wandb_run"].of("define_metric") == [(("*",), {"step_metric": "iteration"})]
    assert packages["wandb_run"].of("finish") == [((), {"exit_code": 0})]
    assert packages["mlflow"].of("set_tracking_uri") == [(("http://x",), {})]
    assert [(args, kwargs["step"]) for args, kwargs in packages["mlflow"].of("log_metrics")] == [
        ((values,), 3) for values in NUMBERS
    ]
    assert packages["mlflow"].of("end_run") == [(("FINISHED",), {})]


def test_a_run_that_failed_is_closed_as_one(packages: dict[str, Calls], tmp_path: Path) -> None:
    Trackers(small_config(**FLAGS, output_dir=str(tmp_path)), 0, print).close(failed=True)
    assert packages["wandb_run"].of("finish") == [((), {"exit_code": 1})]
    assert packages["mlflow"].of("end_run") == [(("FAILED",), {})]


def test_a_resumed_run_goes_on_where_it_was(packages: dict[str, Calls], tmp_path: Path) -> None:
    """Begun, resumed, evaluated by itself, resumed under another project's name, begun anew."""
    starts = ((0, "ours"), (5, "ours"), (None, "ours"), (5, "theirs"), (0, "ours"))
    for iteration, project in starts:
        names = {"wandb_project": project, "mlflow_experiment": project}
        Trackers(small_config(**names, output_dir=str(tmp_path)), iteration, print)
    assert [init["id"] for _, init in packages["wandb"].of("init")] == [None, "w1", None, None, None]
    assert [start["run_id"] for _, start in packages["mlflow"].of("start")] == [None, "m1", None, None, None]
    assert len(packages["mlflow"].of("log_params")) == 4  # not where they are known already


def test_nothing_is_imported_that_was_not_asked_for(packages: dict[str, Calls]) -> None:
    trackers = Trackers(small_config(), 0, print)
    trackers.log(TRAINING)
    trackers.close(failed=False)
    assert [package.made for package in packages.values()] == [[]] * 4


def test_a_failure_is_told_once_and_stops_nothing(packages: dict[str, Calls], monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*args: Any, **kwargs: Any) -> None:
        raise ConnectionError("no network")

    warnings: list[str] = []
    monkeypatch.setattr(packages["wandb_run"], "log", no_network, raising=False)
    monkeypatch.setattr(packages["mlflow"], "start_run", no_network, raising=False)
    trackers = Trackers(small_config(**FLAGS), 0, warnings.append)
    for line in (TRAINING, EVALUATION):
        trackers.log(line)
    trackers.close(failed=False)
    assert [warning.split(":")[1] for warning in warnings] == [
        " MLflow failed, training goes on",
        " WeightsAndBiases failed, training goes on",
    ]
    assert len(packages["writer"].of("add_scalar")) == 5  # the third one goes on
    assert packages["mlflow"].of("log_metrics") == []  # it was never opened


def test_numbers_leave_out_what_is_none() -> None:
    assert [numbers(line) for line in (TRAINING, EVALUATION)] == NUMBERS


def test_positions_of_long_chunks_are_for_the_file_alone() -> None:
    losses = tuple(float(position) for position in range(17))
    for width, told in ((16, True), (17, False)):
        line = {"iteration": 3, "split": "validation", "lm_loss": 2.0, "lm_loss_by_position": losses[:width]}
        assert len(numbers(line)) == (1 + width if told else 1)
        printed = evaluation_line("validation", 3, Evaluation(2.0, 64, 0, losses[:width]))
        assert ("lm loss by position in chunk: 0.0000 1.0000" in printed) == told
    assert "by position" not in evaluation_line("validation", 3, Evaluation(2.0, 64, 0))


def test_an_evaluation_alone_hides_nothing(packages: dict[str, Calls]) -> None:
    Trackers(small_config(tensorboard_dir="tb"), None, print)
    assert packages["writer"].of("open") == [(("tb",), {"purge_step": None})]
