"""lm_eval's tasks through our model class and through `hf` give the same numbers; tasks and data are local."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from tests.cli.programs import tool
from tests.distributed.pool import Pool
from tests.examined_cases import refusal, task_results

pytest.importorskip("lm_eval")

WORDS = "the cat sat on a mat and looked at me with two green eyes while rain fell".split()
HEAD = """task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
metadata:
  version: 2.0
"""
# The kinds of request that the paper's tasks make: choices (ARC, HellaSwag, PIQA, ...), a last word (LAMBADA), whole
# texts (WikiText), and one that is generated.
TASKS = {
    "local_choice": """output_type: multiple_choice
doc_to_text: "{{text}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{label}}"
metric_list:
  - metric: acc
  - metric: acc_norm
""",
    "local_word": """output_type: loglikelihood
doc_to_text: "{{text}}"
doc_to_target: " {{choices[0]}}"
metric_list:
  - metric: perplexity
  - metric: acc
""",
    "local_text": """output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{whole}}"
metric_list:
  - metric: word_perplexity
  - metric: byte_perplexity
  - metric: bits_per_byte
""",
    "local_answer": """output_type: generate_until
doc_to_text: "{{text}}"
doc_to_target: "{{choices[0]}}"
generation_kwargs:
  until: ["e"]
  do_sample: false
  temperature: 0.0
  max_gen_toks: 12
metric_list:
  - metric: exact_match
""",
}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tasks and their data; some texts are longer than the model reads at once."""
    folder, draw = tmp_path_factory.mktemp("tasks"), random.Random(0)
    rows = []
    for number in range(12):
        text = " ".join(draw.choice(WORDS) for _ in range(3 + number))
        choices = [" ".join(draw.choice(WORDS) for _ in range(1 + choice)) for choice in range(3)]
        whole = " ".join(draw.choice(WORDS) for _ in range(4 + 5 * number))
        rows.append({"text": text, "choices": choices, "label": number % 3, "whole": whole})
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, body in TASKS.items():
        (folder / f"{name}.yaml").write_text(HEAD.format(name=name, data=folder / "rows.jsonl") + body)
    return folder


def test_our_model_class_and_hf_agree(pool: Pool, model_folder, tasks: Path) -> None:
    pytest.importorskip("accelerate", reason="lm_eval's `hf` needs accelerate")
    checkpoint, exported = model_folder("contextlm"), model_folder("contextlm", exported=True)
    given = {"tasks": list(TASKS), "folder": str(tasks)}
    ours = pool.run(task_results, 1, model="contextlm", arguments={"load": checkpoint}, **given)[0]
    hf = {"pretrained": exported, "dtype": "float32"}
    theirs = pool.run(task_results, 1, model="hf", arguments=hf, **given)[0]
    assert set(ours) == set(TASKS)
    for task in TASKS:
        assert ours[task] == pytest.approx(theirs[task], rel=1e-4), task
    # The control: without the context it is another model.
    zeroed = {"load": checkpoint, "context_control": "zero"}
    without = pool.run(task_results, 1, model="contextlm", arguments=zeroed, **given)[0]
    assert without["local_text"] != pytest.approx(theirs["local_text"], rel=1e-4)


def test_the_tool_tells_tasks_with_errors_versions_and_identity(pool: Pool, model_folder, tasks: Path) -> None:
    output, names = tasks / "result.json", ["local_choice", "local_word"]
    given = ["--tasks", ",".join(names), "--include-path", str(tasks), "--max-samples", "9", "--output", str(output)]
    pool.run(tool, 1, name="evaluate", arguments=["--load", model_folder("contextlm"), *given])
    found = json.loads(output.read_text())
    assert set(found["tasks"]) == set(names) and found["iteration"] == 0 and len(found["weights_sha256"]) == 64
    for task in found["tasks"].values():
        assert task["version"] == 2.0 and task["examples"] == 9
    accuracy, word = found["tasks"]["local_choice"]["measures"]["acc"], found["tasks"]["local_word"]["measures"]
    assert accuracy["stderr"] == pytest.approx((accuracy["value"] * (1 - accuracy["value"]) / 8) ** 0.5)
    assert word["perplexity"]["value"] > 1 and word["perplexity"]["stderr"] > 0
    unknown = pool.run(refusal, 1, name="evaluate", arguments=["--load", "x", "--tasks", "no_such_task"])[0]
    assert "--tasks no_such_task: lm_eval" in unknown and "has no such task" in unknown
