"""The quickstart's machinery without its training: the corpus, the plan, and running every step once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
QUICKSTART = CHECKOUT / "examples" / "quickstart"
LOG_LINE = (
    " [2026-01-01 12:00:00.123456] iteration      100/    1000 | consumed samples:         6400 |"
    " elapsed time per iteration (ms): 812.3 | lm loss: 4.123456E+00 | loss scale: 1.0 |"
)


@pytest.fixture
def quickstart(monkeypatch: pytest.MonkeyPatch):
    """The quickstart's modules, as its own script sees them."""
    monkeypatch.syspath_prepend(str(QUICKSTART))
    import corpus
    import plan
    import steps

    yield type("Modules", (), {"corpus": corpus, "plan": plan, "steps": steps})
    for name in ("corpus", "plan", "steps", "display"):
        sys.modules.pop(name, None)


def test_corpus_is_made_of_docstrings_and_topics_in_a_fixed_order(quickstart, tmp_path: Path) -> None:
    library = tmp_path / "library"
    (library / "package").mkdir(parents=True)
    (library / "test").mkdir()
    (library / "pydoc_data").mkdir()
    docstring = "Return the value. " * 30
    method = f'class Box:\n    def get(self, key, *, default=None):\n        """{docstring}"""\n'
    (library / "package" / "__init__.py").write_text(f'"""A package of boxes."""\n{method}')
    (library / "test" / "boxes.py").write_text('"""%s"""' % ("Tests say nothing. " * 30))
    (library / "broken.py").write_text('"""Unclosed.')
    (library / "large.py").write_text('"""%s"""' % ("Some words about it. " * 6000))
    topics = "topics = {'while': 'A loop.\\n', 'assert': 'A check.\\n'}"
    (library / "pydoc_data" / "topics.py").write_text(topics)
    output = tmp_path / "out" / "corpus.jsonl"
    number, size = quickstart.corpus.write_corpus(library, output)
    documents = {line["source"]: line["text"] for line in map(json.loads, output.read_text().splitlines())}
    assert set(documents) == {
        "package/__init__.py",
        "large.py",
        "pydoc_data/topics.py#while",
        "pydoc_data/topics.py#assert",
    }
    assert number == 4 and size == sum(len(text.encode()) for text in documents.values())
    assert documents["package/__init__.py"].startswith("module package\n\nA package of boxes.\n")
    heading = "package.Box.get(self, key, *, default=None)"
    assert f"{heading}\n\nReturn the value." in documents["package/__init__.py"]
    first = output.read_bytes()
    quickstart.corpus.write_corpus(library, output)
    assert output.read_bytes() == first


def test_python_without_sources_is_refused(quickstart, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="without its sources"):
        quickstart.corpus.write_corpus(tmp_path, tmp_path / "corpus.jsonl")
    assert not (tmp_path / "corpus.jsonl").exists()


@pytest.mark.parametrize(
    ("gpus", "processes", "sizes"),
    [(0, 4, ("2x2", "1x2")), (1, 1, ("1x1", "1x1")), (2, 2, ("2x1", "1x2")), (8, 4, ("2x2", "1x2"))],
)
def test_layouts_fit_the_machine(quickstart, gpus: int, processes: int, sizes: tuple[str, str]) -> None:
    plan = quickstart.plan
    job = plan.build_steps(plan.Settings(), plan.Machine(gpus, 2), "python")
    steps = {step.name: step for step in job}
    trained = {"train-contextlm": sizes[0], "resume-contextlm": sizes[1], "train-gpt2": sizes[1]}
    for name, size in trained.items():
        command = steps[name].command
        value = dict(zip(command, command[1:], strict=False))
        assert value["--nproc-per-node"] == str(processes)
        parallel = (value["--tensor-model-parallel-size"], value["--pipeline-model-parallel-size"])
        assert "x".join(parallel) == size
        assert ("--bf16" in command) == (gpus > 0)
        assert value["--save"] == value["--load"]


def test_both_models_get_the_same_data_order_and_length(quickstart) -> None:
    plan = quickstart.plan
    steps = {step.name: step for step in plan.build_steps(plan.Settings(), plan.Machine(0, 2), "python")}
    context, plain = steps["resume-contextlm"].command, steps["train-gpt2"].command
    different = {one for one, other in zip(context, plain, strict=True) if one != other}
    assert different == {"contextlm-gpt2-tiny", "runs/quickstart/contextlm"}
    stop = steps["train-contextlm"].command
    assert stop[-2:] == ("--exit-interval", str(plan.Settings().halfway))
    assert steps["train-contextlm"].variables == {"OMP_NUM_THREADS": "1"} or "OMP_NUM_THREADS" in os.environ


def test_progress_is_read_from_the_log_line(quickstart) -> None:
    latest = quickstart.steps.latest_progress
    assert latest("starting\n") is None
    assert latest(LOG_LINE) == quickstart.steps.Progress(100, 1000, 4.123456)
    assert latest(LOG_LINE + "\n" + LOG_LINE.replace(" 100/", " 110/")).iteration == 110


@pytest.fixture
def runner_of(quickstart, tmp_path: Path):
    """A function that makes a runner of two steps: b.txt is made from a.txt; both note each time they run."""

    step = quickstart.steps.Step

    def bash(text: str) -> tuple[str, ...]:
        return ("bash", "-c", text)

    def make(content: str = "one"):
        first, second = tmp_path / "a.txt", tmp_path / "b.txt"
        steps = [
            step("first", "First", bash(f"echo {content} >a.txt; echo first >>ran"), makes=(first,)),
            step("second", "Second", bash("cat a.txt >b.txt; echo second >>ran"), makes=(second,), needs=("first",)),
        ]
        return quickstart.steps.StepRunner(steps, tmp_path / "job", tmp_path)

    return make


def run_unfinished(runner) -> None:
    for step in runner.steps:
        if runner.seconds(step) is None:
            runner.run(step, lambda progress: None)


def test_finished_steps_are_not_repeated(runner_of, tmp_path: Path) -> None:
    run_unfinished(runner_of())
    run_unfinished(runner_of())
    assert (tmp_path / "ran").read_text().split() == ["first", "second"]


@pytest.mark.parametrize("loss", ["settings", "result"])
def test_what_changed_or_is_gone_is_repeated_with_all_built_on_it(runner_of, tmp_path: Path, loss: str) -> None:
    run_unfinished(runner_of())
    if loss == "result":
        (tmp_path / "a.txt").unlink()
    run_unfinished(runner_of("two" if loss == "settings" else "one"))
    assert (tmp_path / "ran").read_text().split() == ["first", "second", "first", "second"]
    assert (tmp_path / "b.txt").read_text() == ("two\n" if loss == "settings" else "one\n")


def test_failed_step_keeps_its_log_and_is_tried_again(quickstart, tmp_path: Path) -> None:
    made = tmp_path / "made"
    command = ("bash", "-c", "if [ -e mended ]; then touch made; else echo cause; exit 3; fi")
    step = quickstart.steps.Step("only", "Only", command, makes=(made,))
    runner = quickstart.steps.StepRunner([step], tmp_path / "job", tmp_path)
    with pytest.raises(quickstart.steps.StepFailed, match="exit status 3"):
        runner.run(step, lambda progress: None)
    assert runner.log(step).read_text() == "cause\n" and runner.seconds(step) is None
    (tmp_path / "mended").touch()
    assert runner.run(step, lambda progress: None) >= 0 and runner.seconds(step) is not None


def test_training_that_was_killed_after_its_last_save_is_not_run_past_it(quickstart, tmp_path: Path) -> None:
    tracker = tmp_path / "latest_checkpointed_iteration.txt"
    command = ("bash", "-c", "echo run >>ran; exit 1")
    step = quickstart.steps.Step("train", "Train", command, reaches=(tracker, 150))
    runner = quickstart.steps.StepRunner([step], tmp_path / "job", tmp_path)
    with pytest.raises(quickstart.steps.StepFailed):
        runner.run(step, lambda progress: None)
    tracker.write_text("150")
    runner.run(step, lambda progress: None)
    assert (tmp_path / "ran").read_text() == "run\n" and runner.seconds(step) is not None


def test_killed_job_leaves_no_command_running_and_frees_its_folder(tmp_path: Path) -> None:
    script = tmp_path / "job.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\n"
        f"sys.path[:0] = [{str(QUICKSTART)!r}, {str(QUICKSTART.parents[1])!r}]\n"
        "from contextlm.child_processes import only_one\n"
        "from steps import Step, StepRunner\n"
        "folder = Path(sys.argv[1])\n"
        "step = Step('sleep', 'Sleep', ('bash', '-c', 'echo $$ >pid; exec sleep 120'))\n"
        "with only_one('quickstart', folder / 'job', print, patience=0.5):\n"
        "    StepRunner([step], folder / 'job', folder).run(step, lambda progress: None)\n"
    )
    command = [sys.executable, str(script), str(tmp_path)]
    job = subprocess.Popen(command)
    pid_file = tmp_path / "pid"
    try:
        wait_until(lambda: pid_file.exists() and pid_file.read_text().strip() != "")
        second = subprocess.run(command, capture_output=True, text=True, timeout=20)
        assert second.returncode != 0 and "another quickstart is running" in second.stderr
    finally:
        job.send_signal(signal.SIGKILL)
        job.wait()
    if sys.platform == "linux":
        wait_until(
            lambda: (
                not Path(f"/proc/{pid_file.read_text().strip()}/cmdline").exists()
                or Path(f"/proc/{pid_file.read_text().strip()}/cmdline").read_bytes() == b""
            )
        )


def wait_until(condition, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)
