"""Runs a launcher's laptop twin: train, save, resume under another layout, evaluate; in a minute, on this CPU.

    bash examples/pythia/1.4b.sh --laptop
    bash examples/pythia/1.4b.sh --laptop --dry-run     only shows its commands

`examples/launch.sh` calls this with the options of the run and the number of its GPUs. The twin is trained by the same
`examples/launch.sh`, with torchrun, a process for each GPU, gloo in place of NCCL. All it makes lies under
`runs/laptop/NAME` (LAPTOP_DIR). Read next: `twin.py`, what becomes of the model.
"""

from __future__ import annotations

import json
import math
import os
import random
import shlex
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

from contextlm.child_processes import child
from contextlm.config import yaml_file
from contextlm.config.resolve import parse
from contextlm.errors import UserError, tell_problems, tell_warnings
from twin import STEPS, STEPS_BEFORE_STOP, Twin, layout_words, twin_of

CHECKOUT = Path(__file__).resolve().parents[2]
# What says where the real run goes must not reach its twin.
REAL_PLACES = ("SLURM_", "NNODES", "NODE_RANK", "MASTER_", "LOCAL_ADDR", "OUTPUT_DIR", "MAX_RESTARTS")


class Step(NamedTuple):
    """A command of the job, with the variables that it is given."""

    title: str
    command: tuple[str, ...]
    variables: dict[str, str]

    def __str__(self) -> str:
        return " ".join([*(f"{name}={shlex.quote(value)}" for name, value in self.variables.items()), *self.command])


def main(words: list[str]) -> int:
    """The twin of the run that `words` describe; returns the exit status of the first step that fails, or 0."""
    only_shown = "--dry-run" in words
    words = [word for word in words if word not in ("--laptop", "--dry-run")]
    try:
        invocation = parse([*words, "--dry-run"])
    except UserError as error:
        tell_problems(error)
        return 1
    tell_warnings(invocation.warnings)
    assert invocation.world_size is not None  # launch.sh gives it
    twin = twin_of(invocation.config, invocation.world_size)
    folder = Path(os.environ.get("LAPTOP_DIR", CHECKOUT / "runs" / "laptop" / (twin.config.preset or "run"))).absolute()
    steps = steps_of(twin, folder)
    if not only_shown:
        prepare(twin, folder)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(REAL_PLACES)}
    for number, step in enumerate(steps, 1):
        print(f"\n[{number}/{len(steps)}] {step.title}\n{step}", flush=True)
        if only_shown:
            continue
        with child(step.command, CHECKOUT, sys.stdout.buffer, {**inherited, **step.variables}) as process:
            process.wait()
        if process.returncode != 0:
            print(f"\nFAILED, status {process.returncode}: {step.title}; all it made is in {folder}", file=sys.stderr)
            return process.returncode
    if only_shown:
        return 0
    check(twin, folder / "run")
    print(f"\nPassed, in {twin.config.precision}: {', '.join(step.title for step in steps[1:])}. All it made: {folder}")
    print("Not tested:", *twin.untested, sep="\n  - ")
    return 0


def steps_of(twin: Twin, folder: Path) -> list[Step]:
    """The commands, which can be typed by hand in the checkout."""
    words = ("--input", str(folder / "words.jsonl"), "--output-prefix", str(folder / "words"), "--append-eod")
    tokens = (sys.executable, "tools/preprocess_data.py", *words, "--tokenizer-type", "ByteTokenizer")
    places = {
        "PYTHON": sys.executable,
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "DATA_PATH": f"{folder}/words_text_document",
        "TOKENIZER_TYPE": "ByteTokenizer",
        "TOKENIZER_MODEL": "",
        "SAVE": str(folder / "run"),
    }
    launch = ("bash", "examples/launch.sh", "--config")
    first = f"{twin.processes} processes as {layout_words(twin.config, twin.processes)}"
    other = f"{twin.resumed_processes} as {layout_words(twin.resumed, twin.resumed_processes)}"
    evaluate = (sys.executable, "tools/evaluate.py", "--load", str(folder / "run"))
    return [
        Step("random words, as tokens", tokens, {}),
        Step(
            f"train to step {STEPS_BEFORE_STOP} in {first}",
            (*launch, str(folder / "twin.yaml"), "--exit-interval", str(STEPS_BEFORE_STOP)),
            {**places, "GPUS_PER_NODE": str(twin.processes)},
        ),
        Step(
            f"resume to step {STEPS} in {other}",
            (*launch, str(folder / "resumed.yaml")),
            {**places, "GPUS_PER_NODE": str(twin.resumed_processes)},
        ),
        Step("evaluate", evaluate, {"OMP_NUM_THREADS": "1"}),
    ]


def prepare(twin: Twin, folder: Path) -> None:
    """Remove what an earlier twin left; write text and configurations."""
    shutil.rmtree(folder / "run", ignore_errors=True)
    yaml_file.write(twin.config, folder / "twin.yaml")
    yaml_file.write(twin.resumed, folder / "resumed.yaml")
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 7))) for _ in range(150)]
    texts = [" ".join(draw.choices(words, k=draw.randint(20, 120))) for _ in range(200)]
    (folder / "words.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def check(twin: Twin, run: Path) -> None:
    """Stop with a sentence unless every step was made once, with a finite loss, in the layout that was asked for."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = {line["iteration"]: line["lm_loss"] for line in lines if "split" not in line}
    layouts = {
        STEPS_BEFORE_STOP: layout_words(twin.config, twin.processes),
        STEPS: layout_words(twin.resumed, twin.resumed_processes),
    }
    saved = {step: json.loads((run / f"iter_{step:07d}" / "run.json").read_text())["layout"] for step in layouts}
    if list(losses) != list(range(1, STEPS + 1)) or not all(map(math.isfinite, losses.values())):
        raise SystemExit(f"FAILED: losses by step are {losses}")
    if not all(saved[step].startswith(words) for step, words in layouts.items()):
        raise SystemExit(f"FAILED: checkpoints were saved as {saved}, wanted {layouts}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
