"""Trains a small ContextLM and its GPT-2 baseline on this machine, from raw text to a report.

    make quickstart                                      (the environment first, if it is not there)
    .venv/bin/python examples/quickstart/run.py --iterations 40
    .venv/bin/python examples/quickstart/run.py --fresh

Running it again repeats nothing that is done and continues what was interrupted. Everything it makes
lies under runs/quickstart/. Read next: `plan.py`, the commands it runs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import shutil
import signal
import sys
from pathlib import Path

from contextlm import atomic_files
from contextlm.child_processes import only_one
from display import Display
from plan import Files, Machine, Settings, build_steps
from steps import Step, StepFailed, StepRunner

CHECKOUT = Path(__file__).resolve().parents[2]


def main() -> int:
    arguments = _parse()
    os.chdir(CHECKOUT)
    signal.signal(signal.SIGTERM, _leave)  # as Ctrl-C does: ends the running command, then us
    settings = Settings(folder=arguments.folder, iterations=arguments.iterations)
    machine = Machine(gpus=_count_gpus(), cores=_count_cores())
    steps = build_steps(settings, machine, _python())
    display = Display(len(steps))
    try:
        with only_one("quickstart", settings.folder, display.say):
            if arguments.fresh:
                _empty(settings.folder)
            display.say(f"ContextLM quickstart: {machine.describe()}")
            _write_commands(steps, Files(settings.folder).commands)
            return _run_all(steps, StepRunner(steps, settings.folder, CHECKOUT), display, settings)
    except KeyboardInterrupt:
        display.fail("stopped; the same command continues from here")
        return 130
    except TimeoutError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _run_all(steps: list[Step], runner: StepRunner, display: Display, settings: Settings) -> int:
    for step in steps:
        display.begin(step.title)
        done = runner.seconds(step)
        if done is not None:
            display.end(f"done before, in {done:.0f} s")
            continue
        try:
            display.end(f"{runner.run(step, display.watch):.0f} s")
        except (StepFailed, RuntimeError) as error:
            log = runner.log(step)
            tail = log.read_text(errors="replace").splitlines()[-20:] if log.exists() else []
            display.fail(
                "\n".join(f"    {line}" for line in tail)
                + f"\n{error}{_cause(step)}\nAll it printed: {log}\nThe command: {_typed(step)}\n"
                + "After mending it, `make quickstart` continues from here."
            )
            return 1
    _last_screen(display, Files(settings.folder))
    return 0


def _cause(step: Step) -> str:
    """What the first failing rank of a training run said; torchrun's own report, printed last, does not."""
    if "--save" not in step.command:
        return ""
    record = Path(step.command[step.command.index("--save") + 1]) / "exit.json"
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(record.read_text())
        if found["status"] != 0:
            return f"\nRank {found['rank']}: {found['cause']}"
    return ""


def _last_screen(display: Display, files: Files) -> None:
    lines = ["", "Finished. Validation loss per token (one small seed: no evidence for either model):"]
    for model in ("contextlm", "gpt2"):
        result = json.loads((files.run(model) / "evaluation.json").read_text())
        numbers = [
            f"{name.replace('_', ' ')} {result[name]:.4f}"
            for name in ("lm_loss", "perplexity", "bits_per_byte")
            if result.get(name) is not None
        ]
        lines.append(f"    {model:<10} {'   '.join(numbers)}")
    lines += [
        "",
        f"    {files.report}  curves, table and samples: open it in a browser",
        f"    {files.run('contextlm')}/  and {files.run('gpt2')}/  checkpoints, metrics.jsonl",
        f"    {files.commands}  every command that ran; what each printed is in {files.folder}/logs/",
        "",
        "What to try next:",
        f"    .venv/bin/python tools/generate.py --load {files.run('contextlm')} --prompt 'Raise an error'",
        "    make quickstart ARGS='--iterations 1000 --folder runs/longer'   more training, beside this one",
        f"    {files.commands}: take the training command, add --context-chunk-size 8, save elsewhere",
        "    .venv/bin/python pretrain_contextlm.py --model contextlm-gpt2-124m --dry-run",
        "    README.md: your own text, 8 GPUs, many nodes",
    ]
    display.say("\n".join(lines))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    iterations, folder = Settings.iterations, Settings.folder
    parser.add_argument("--iterations", type=int, default=iterations, help="optimizer steps per model")
    parser.add_argument("--folder", type=Path, default=folder, help="where everything goes")
    parser.add_argument("--fresh", action="store_true", help="remove what earlier runs left in the folder")
    arguments = parser.parse_args()
    if arguments.iterations < 2:
        parser.error(f"--iterations {arguments.iterations}: must be at least 2, to stop half way")
    return arguments


def _count_gpus() -> int:
    """CUDA devices that torch can use; torch is only asked where there is an NVIDIA driver."""
    if not (Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi")):
        return 0
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _count_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _python() -> str:
    """This interpreter, as one types it in the checkout."""
    path = Path(sys.executable)
    return str(path.relative_to(CHECKOUT)) if path.is_relative_to(CHECKOUT) else str(path)


def _typed(step: Step) -> str:
    variables = " ".join(f"{name}={value}" for name, value in step.variables.items())
    return f"{variables} {shlex.join(step.command)}".strip()


def _write_commands(steps: list[Step], file: Path) -> None:
    lines = ["# All commands of the quickstart, in order; to be run in the checkout."]
    for step in steps:
        lines += ["", f"# {step.title}", _typed(step)]
    content = ("\n".join(lines) + "\n").encode()
    if not file.exists() or file.read_bytes() != content:
        atomic_files.write_bytes(file, content)


def _empty(folder: Path) -> None:
    """Removes only what this job makes: the folder may have been named by mistake."""
    files = Files(folder)
    made = [
        files.corpus,
        files.tokenizer.parent,
        files.data.parent,
        files.run("contextlm"),
        files.run("gpt2"),
        files.report,
        files.commands,
        folder / "steps",
        folder / "logs",
    ]
    for path in made:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _leave(signal_number: int, frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
