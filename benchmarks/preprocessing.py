"""python benchmarks/preprocessing.py --input corpus.jsonl --vocab-file vocab.json --merge-file merges.txt \\
    --megatron Megatron-LM

Tokenizes the same JSON lines, key `text`, with Megatron-LM's tool (a checkout of core_v0.16.1), with the tokenizer's
library alone, and with ours, in turns and on the same cores. Whole processes are timed, start-up included; of the
library alone also the part in which it tokenizes texts that lie in memory. Nothing is compared with a stored time.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rounds import Ratio, speed_ratio
from table import machine, table

ROOT = Path(__file__).resolve().parents[1]
OURS, MEGATRON, WHOLE, ALONE = "ours", "Megatron-LM's tool", "library, whole process", "library, tokenizing alone"
HELP = "ours, --help"
OF_RAW = 0.6
START_SECONDS = 1.0
# Reads, parses and tokenizes with all cores, and keeps the ids in memory. Prints the seconds of tokenizing alone.
RAW = """
import json, sys, time
import gigatoken
import tokenizers
from contextlm.config.schema import DataConfig
from contextlm.data.tokenizers import build_tokenizer
data = DataConfig(tokenizer_type="GPT2BPETokenizer", vocab_file=sys.argv[2], merge_file=sys.argv[3])
library = gigatoken.Tokenizer.from_json(build_tokenizer(data)._json_to_encode)
with open(sys.argv[1], "rb") as stream:
    texts = [json.loads(line)["text"] for line in stream]
began = time.perf_counter()
ids = library.encode_batch(texts, parallel=True)
print("alone", time.perf_counter() - began)
"""


class Turn(NamedTuple):
    """Seconds by the clock and of all cores, and what it printed."""

    wall: float
    cpu: float
    output: str


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print; exits with a sentence for each target that is missed."""
    options = parser().parse_args(arguments)
    size = os.path.getsize(options.input)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        turns = measure(commands(options, folder), options.rounds)
    alone = [float(re.findall(r"alone (\S+)", turn.output)[-1]) for turn in turns[WHOLE]]
    wall = {name: [turn.wall for turn in found] for name, found in turns.items()} | {ALONE: alone}
    print(f"{machine()}; {options.workers} used; {size / 1e6:.1f} MB")
    rows, missed = [], []
    for name, target in ((MEGATRON, megatron_target(size)), (ALONE, OF_RAW), (WHOLE, None), (OURS, None), (HELP, None)):
        if name not in wall:
            continue
        seconds = sorted(wall[name])[len(wall[name]) // 2]
        cpu = "" if name == ALONE else f"{min(turn.cpu for turn in turns[name]):.2f}"
        row = (name, f"{seconds:.2f}", cpu, "" if name == HELP else f"{size / seconds / 1e6:.1f}")
        if name in (OURS, HELP):
            rows.append((*row, "", "", "", ""))
            continue
        ratio = speed_ratio(wall[OURS], wall[name])
        verdict = "" if target is None else ratio.verdict(target)
        rows.append((*row, f"{ratio.median:.2f}", f"{ratio.low:.2f}..{ratio.high:.2f}", f"{target or ''}", verdict))
        if target is not None and verdict == "missed":
            missed.append(sentence(name, ratio, target))
    if min(wall[HELP]) > START_SECONDS:
        missed.append(f"the tool takes {min(wall[HELP]):.2f} s to start; the target is {START_SECONDS:g} s")
    print(table(("program", "seconds", "CPU seconds", "MB/s", "ours/it", "interval", "target", "verdict"), rows))
    if missed:
        raise SystemExit("\n".join(missed))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Preprocessing beside Megatron-LM's tool and the tokenizer alone.", allow_abbrev=False
    )
    parser.add_argument("--input", required=True, metavar="PATH", help="JSON lines with the key text")
    parser.add_argument("--vocab-file", required=True, metavar="PATH", help="vocab.json of a GPT-2 vocabulary")
    parser.add_argument("--merge-file", required=True, metavar="PATH", help="merges.txt of it")
    parser.add_argument("--megatron", metavar="FOLDER", help="checkout of Megatron-LM; left out if not given")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="cores [all]")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each [3]")
    parser.add_argument("--folder", metavar="FOLDER", help="where to write what is made [the system's]")
    return parser


def commands(options: argparse.Namespace, folder: str) -> dict[str, list[str]]:
    """What runs in each round."""
    vocabulary = ["--vocab-file", options.vocab_file, "--merge-file", options.merge_file]
    words = ["--input", options.input, "--append-eod", "--tokenizer-type", "GPT2BPETokenizer", *vocabulary]
    words += ["--workers", str(options.workers), "--log-interval", "1000000000", "--output-prefix"]
    tool = str(ROOT / "tools" / "preprocess_data.py")
    found = {
        OURS: [tool, *words, f"{folder}/ours"],
        WHOLE: ["-c", RAW, options.input, options.vocab_file, options.merge_file],
        HELP: [tool, "--help"],
    }
    if options.megatron:
        theirs = f"{options.megatron}/tools/preprocess_data.py"
        # The newer tokenizers of that release ask the Hub for GPT-2's, files or not.
        found[MEGATRON] = [theirs, *words, f"{folder}/theirs", "--legacy-tokenizer"]
    return found


def measure(programs: dict[str, list[str]], rounds: int) -> dict[str, list[Turn]]:
    """Every program in every round."""
    turns: dict[str, list[Turn]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, words in programs.items():
            turns[name].append(run(words, None if name != MEGATRON else Path(words[0]).parents[1]))
    return turns


def run(words: Sequence[str], package: Path | None) -> Turn:
    """One program, with the package of this checkout or of another one."""
    environment = {**os.environ, "PYTHONPATH": str(package or ROOT)}
    cpu, began = _cpu_of_children(), time.perf_counter()
    done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - began
    if done.returncode != 0:
        raise SystemExit(f"{done.stdout}{done.stderr}\n{words[0]} failed")
    return Turn(seconds, _cpu_of_children() - cpu, done.stdout)


def megatron_target(size: int) -> float:
    """How many times as fast as Megatron-LM's tool; the start counts for less in a large file."""
    return 10 if size > 100e6 else 8


def sentence(name: str, ratio: Ratio, target: float) -> str:
    """A target that is missed."""
    return f"ours has {ratio.median:.2f} times the speed of {name}, at most {ratio.high:.2f}; the target is {target:g}"


def _cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
