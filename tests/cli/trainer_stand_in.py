"""Stands in for pretrain_contextlm.py: leaves what a run leaves, without training.

Run in the study's folder. A file `fail-NAME` there has the run fail, with the status that the file holds or else 3; a
file `stop-NAME` has it save half way and wait to be stopped. Each call adds its name and its first iteration to `ran`.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

import yaml


def main(config_file: str) -> int:
    tree = yaml.safe_load(Path(config_file).read_text())
    training, place = tree["training"], tree["checkpoint"]["save"] or tree["logging"]["output_dir"]
    folder, last = Path(place), training["exit_interval"] or training["train_iters"]
    tracker, metrics = folder / "latest_checkpointed_iteration.txt", folder / "metrics.jsonl"
    first = int(tracker.read_text()) if tracker.exists() else 0
    with open("ran", "a") as file:
        file.write(f"{folder.name} {first}\n")
    print(f"training {folder.name}")
    if (fail := Path(f"fail-{folder.name}")).exists():
        print("the cause")
        return int(fail.read_text() or 3)
    half = Path(f"stop-{folder.name}").exists()
    last = last // 2 if half else last
    # The loss is a function of the model and the seed, with a part that is the seed's alone.
    seed, gated = training["seed"], tree["context"]["context_chunk_size"] > 0
    loss = tree["model"]["num_layers"] - 0.1 * gated + seed + 0.001 * seed * gated
    with metrics.open("a") as file:
        for iteration in range(first + 1, last + 1):
            file.write(json.dumps({"iteration": iteration, "lm_loss": loss + 1, "elapsed_ms": 100.0}) + "\n")
        if not half:
            file.write(json.dumps({"iteration": last, "split": "validation", "lm_loss": loss}) + "\n")
    checkpoint = folder / f"iter_{last:07d}"
    checkpoint.mkdir(exist_ok=True)
    shutil.copy(config_file, checkpoint / "config.yaml")
    (checkpoint / "run.json").write_text(json.dumps({"vocab_size": 400, "data_fingerprint": str(seed)}))
    tracker.write_text(str(last))
    while half:
        time.sleep(0.1)
    return 0


if __name__ == "__main__":
    assert sys.argv[1] == "--config"
    sys.exit(main(sys.argv[2]))
