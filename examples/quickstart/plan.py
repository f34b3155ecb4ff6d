"""What the quickstart does: its sizes, its layouts on this machine, and its commands in order.

Every step is a command that can be typed by hand; the list below is the whole job. Read next: `steps.py`,
how they are run.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from steps import Step

PROMPT = "Return a new list"


@dataclass(frozen=True)
class Settings:
    """Sizes of the job. The defaults take a few minutes on 2 CPU cores."""

    folder: Path = Path("runs/quickstart")
    iterations: int = 240
    global_batch_size: int = 16
    micro_batch_size: int = 4
    seq_length: int = 256
    vocab_size: int = 512
    lr: float = 3e-3
    warmup_iterations: int = 20
    split: str = "90,10,0"  # no test split: there is nothing here to tune
    eval_batches: int = 6
    new_tokens: int = 80
    seed: int = 1234

    @property
    def halfway(self) -> int:
        """The iteration at which training stops, to be continued in another layout."""
        return max(1, self.iterations // 2)


@dataclass(frozen=True)
class Layout:
    """How one training job is spread over processes."""

    tensor: int
    pipeline: int
    data: int

    @property
    def processes(self) -> int:
        """Processes in all."""
        return self.tensor * self.pipeline * self.data

    def __str__(self) -> str:
        return f"TP {self.tensor} x PP {self.pipeline} x DP {self.data}"


@dataclass(frozen=True)
class Machine:
    """What the job runs on: `gpus` is 0 where training runs on the CPU."""

    gpus: int
    cores: int

    def layouts(self) -> tuple[Layout, Layout]:
        """The layouts before and after the stop: four processes, or as many as there are GPUs."""
        if self.gpus == 1:
            return Layout(1, 1, 1), Layout(1, 1, 1)
        if self.gpus in (2, 3):
            return Layout(2, 1, 1), Layout(1, 2, 1)
        return Layout(2, 2, 1), Layout(1, 2, 2)

    def describe(self) -> str:
        """One line: where and in which layouts the models are trained."""
        first, second = self.layouts()
        if self.gpus == 0:
            return f"{first.processes} processes on {self.cores} CPU cores: {first}, then {second}"
        if self.gpus < 4:
            shrunk = "four GPUs would take TP 2 x PP 2"
            return f"{first.processes} of {self.gpus} GPU(s), in bf16: {first}, then {second} ({shrunk})"
        return f"4 of {self.gpus} GPUs, in bf16: {first}, then {second}"


@dataclass(frozen=True)
class Files:
    """Where everything lies."""

    folder: Path

    @property
    def corpus(self) -> Path:
        """The text, one JSON object per line."""
        return self.folder / "corpus.jsonl"

    @property
    def tokenizer(self) -> Path:
        """The SentencePiece model."""
        return self.folder / "tokenizer" / "stdlib.model"

    @property
    def data(self) -> Path:
        """Prefix of the token files."""
        return self.folder / "data" / "stdlib_text_document"

    @property
    def report(self) -> Path:
        """The page with curves, table and samples."""
        return self.folder / "report.html"

    @property
    def commands(self) -> Path:
        """All commands of the job, to read or to run by hand."""
        return self.folder / "commands.sh"

    def run(self, model: str) -> Path:
        """Checkpoints and metrics of one model."""
        return self.folder / model


def build_steps(settings: Settings, machine: Machine, python: str) -> list[Step]:
    """The job's commands, in order; `python` is the interpreter of the environment."""
    files = Files(settings.folder)
    first, second = machine.layouts()
    context, plain = files.run("contextlm"), files.run("gpt2")
    steps = _data_steps(settings, files, python)
    steps += [
        Step(
            "train-contextlm",
            f"train ContextLM to iteration {settings.halfway} ({first})",
            _train(settings, machine, first, python, "contextlm-gpt2-tiny", context)
            + ("--exit-interval", str(settings.halfway)),
            makes=(context,),
            needs=("tokens",),
            variables=_threads(machine, first),
            reaches=(context / "latest_checkpointed_iteration.txt", settings.halfway),
        ),
        Step(
            "resume-contextlm",
            f"resume ContextLM to iteration {settings.iterations} ({second})",
            _train(settings, machine, second, python, "contextlm-gpt2-tiny", context),
            needs=("train-contextlm",),
            variables=_threads(machine, second),
        ),
        Step(
            "train-gpt2",
            f"train plain GPT-2 on the same data in the same order ({second})",
            _train(settings, machine, second, python, "gpt2-tiny", plain),
            makes=(plain,),
            needs=("tokens",),
            variables=_threads(machine, second),
        ),
    ]
    for name, folder, trained in (("contextlm", context, "resume-contextlm"), ("gpt2", plain, "train-gpt2")):
        steps += _examine(settings, files, python, name, folder, trained)
    report = (
        python,
        "tools/report.py",
        str(context),
        str(plain),
        "--commands",
        str(files.commands),
        "--title",
        "ContextLM quickstart",
        "--output",
        str(files.report),
    )
    examined = tuple(f"{kind}-{name}" for name in ("contextlm", "gpt2") for kind in ("evaluate", "sample"))
    steps.append(Step("report", "report", report, makes=(files.report,), needs=examined))
    return steps


def _data_steps(settings: Settings, files: Files, python: str) -> list[Step]:
    """Raw text -> tokenizer -> token files."""
    tokenizer_prefix, data_prefix = files.tokenizer.with_suffix(""), files.folder / "data" / "stdlib"
    corpus = (python, "examples/quickstart/corpus.py", "--output", str(files.corpus))
    tokenizer = (
        python,
        "tools/train_tokenizer.py",
        "--input",
        str(files.corpus),
        "--json-key",
        "text",
        "--vocab-size",
        str(settings.vocab_size),
        "--model-type",
        "bpe",
        "--output-prefix",
        str(tokenizer_prefix),
    )
    tokens = (
        python,
        "tools/preprocess_data.py",
        "--input",
        str(files.corpus),
        "--output-prefix",
        str(data_prefix),
        "--append-eod",
        "--workers",
        "2",
        *_tokenizer(files),
    )
    return [
        Step("corpus", "text: the documentation of Python's standard library", corpus, makes=(files.corpus,)),
        Step("tokenizer", "SentencePiece tokenizer", tokenizer, makes=(files.tokenizer,), needs=("corpus",)),
        Step(
            "tokens",
            "tokens: .bin and .idx files",
            tokens,
            needs=("corpus", "tokenizer"),
            makes=(Path(f"{files.data}.bin"), Path(f"{files.data}.idx")),
        ),
    ]


def _train(
    settings: Settings, machine: Machine, layout: Layout, python: str, model: str, folder: Path
) -> tuple[str, ...]:
    """Training under torchrun; the same command resumes, because it loads from where it saves."""
    files = Files(settings.folder)
    options = {
        "--model": model,
        "--data-path": files.data,
        "--split": settings.split,
        "--seq-length": settings.seq_length,
        "--tensor-model-parallel-size": layout.tensor,
        "--pipeline-model-parallel-size": layout.pipeline,
        "--micro-batch-size": settings.micro_batch_size,
        "--global-batch-size": settings.global_batch_size,
        "--train-iters": settings.iterations,
        "--lr": settings.lr,
        "--lr-warmup-iters": min(settings.warmup_iterations, settings.iterations // 4),
        "--eval-interval": max(1, settings.iterations // 6),
        "--eval-iters": settings.eval_batches,
        "--log-interval": max(1, min(5, settings.iterations // 10)),
        "--seed": settings.seed,
        "--save": folder,
        "--load": folder,
        "--save-interval": max(1, settings.iterations // 4),
    }
    return (
        # A free port on the loopback address: two jobs on one machine do not meet.
        python,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        str(layout.processes),
        "--rdzv-backend",
        "c10d",
        "--rdzv-endpoint",
        "127.0.0.1:0",
        # Else the ranks look for this machine by its name, which not every network resolves.
        "--local-addr",
        "127.0.0.1",
        "pretrain_contextlm.py",
        *(str(word) for option in options.items() for word in option),
        *_tokenizer(files),
        *(("--bf16",) if machine.gpus else ()),
    )


def _examine(settings: Settings, files: Files, python: str, name: str, folder: Path, trained: str) -> list[Step]:
    """Evaluation and a sample of one trained model."""
    evaluation, sample = folder / "evaluation.json", folder / "samples.json"
    return [
        Step(
            f"evaluate-{name}",
            f"evaluate {name} on the validation split",
            (
                python,
                "tools/evaluate.py",
                "--load",
                str(folder),
                "--data-path",
                str(files.data),
                "--split",
                settings.split,
                "--output",
                str(evaluation),
            ),
            makes=(evaluation,),
            needs=(trained,),
        ),
        Step(
            f"sample-{name}",
            f"sample a continuation from {name}",
            (
                python,
                "tools/generate.py",
                "--load",
                str(folder),
                "--prompt",
                PROMPT,
                "--max-new-tokens",
                str(settings.new_tokens),
                "--seed",
                str(settings.seed),
                "--output",
                str(sample),
            ),
            makes=(sample,),
            needs=(trained,),
        ),
    ]


def _tokenizer(files: Files) -> tuple[str, ...]:
    return ("--tokenizer-type", "SentencePieceTokenizer", "--tokenizer-model", str(files.tokenizer))


def _threads(machine: Machine, layout: Layout) -> dict[str, str]:
    """torch starts a thread per core in every process; more threads than cores are many times slower."""
    if "OMP_NUM_THREADS" in os.environ:
        return {}
    return {"OMP_NUM_THREADS": str(max(1, machine.cores // layout.processes))}
