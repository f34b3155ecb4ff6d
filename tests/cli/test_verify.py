"""tools/verify.py: what holds is proved, and each claim fails on what was broken to refute it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from contextlm.verification.tensor_parallel import SIZE, split_logits
from tests.cli.programs import run
from tests.distributed.pool import Pool
from tests.examined_cases import failing_program, logits_alone, verdicts

CAUSAL, CACHED = "no logit sees a later token", "cached decoding is the full forward pass"
LOGITS = "its logits are those of the parity certificate"
CODE, FILES = "its code is ContextLM's", "its files are those of the parity certificate"


def failures(found: dict[str, str]) -> set[str]:
    return {claim for claim, verdict in found.items() if verdict != "holds"}


@pytest.mark.parametrize(
    ("kind", "exported"), [("contextlm", False), ("rotary", True), ("plain", False), ("apart", False)]
)
def test_everything_holds(pool: Pool, model_folder, kind: str, exported: bool) -> None:
    found = pool.run(verdicts, 1, load=model_folder(kind, exported))[0]
    assert failures(found) == set(), found
    assert {CAUSAL, CACHED, "a text alone and in a batch", "padding on the left", "padding on the right"} <= set(found)
    assert ("that check finds a leak" in found) == (kind != "plain")
    assert (FILES in found) == exported


@pytest.mark.parametrize(
    ("tampered", "exported", "refuted"),
    [("alignment", False, CAUSAL), ("cache", True, CACHED), ("padding", True, "padding on the left")],
)
def test_what_is_broken_is_refuted(pool: Pool, model_folder, tampered: str, exported: bool, refuted: str) -> None:
    found = pool.run(verdicts, 1, load=model_folder("contextlm", exported), tampered=tampered)[0]
    assert refuted in failures(found), found
    if tampered == "cache":
        assert CAUSAL not in failures(found)


def test_the_exit_status_is_the_verdict(pool: Pool, model_folder) -> None:
    status, written = pool.run(failing_program, 1, load=model_folder("contextlm"))[0]
    assert status.startswith("refuted: no logit sees a later token")
    (proof,) = (proof for proof in written["proofs"] if proof["claim"] == CAUSAL)
    assert proof["deviation"] > 1e-3 and not proof["holds"]


def test_a_folder_that_was_tampered_with_is_refuted(pool: Pool, model_folder, tmp_path: Path) -> None:
    """Its code is not run; with --trust-remote-code it is, and the leak in it is found."""
    folder = tmp_path / "tampered"
    shutil.copytree(model_folder("contextlm", exported=True), folder)
    head = folder / "head_contextlm.py"
    aligned = "(places.numbers_BT + self.config.context_shift)"
    assert aligned in head.read_text()
    leaky = aligned.replace("context_shift", "context_shift + self.config.context_chunk_size")
    head.write_text(head.read_text().replace(aligned, leaky))
    assert failures(pool.run(verdicts, 1, load=str(folder))[0]) == {CODE}
    assert CAUSAL in failures(pool.run(verdicts, 1, load=str(folder), trust_remote_code=True)[0])
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | {"context_shift": False}))
    assert failures(pool.run(verdicts, 1, load=str(folder))[0]) == {CODE, LOGITS}
    (folder / "config.json").write_text(json.dumps(content))
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(bytes(weights))
    assert FILES in failures(pool.run(verdicts, 1, load=str(folder))[0])


@pytest.mark.parametrize(("kind", "exported"), [("contextlm", False), ("rotary", True)])
def test_two_tensor_parallel_processes_are_one(pool: Pool, model_folder, kind: str, exported: bool) -> None:
    folder, tokens = model_folder(kind, exported), [[1, 2, 3, 4, 5, 6, 7, 8, 9], [200, 256, 0, 9, 8, 7, 6, 5, 4]]
    alone = pool.run(logits_alone, 1, load=folder, tokens=tokens)[0]
    for split in pool.run(split_logits, SIZE, folder=_iteration(folder), tokens=tokens, vocab_size=257):
        torch.testing.assert_close(split, alone, rtol=0, atol=5e-5 * alone.abs().max().item())


def _iteration(folder: str) -> str:
    """What verify.py hands on: the folder that holds the weights themselves."""
    found = sorted(Path(folder).glob("iter_*"))
    return str(found[-1] if found else folder)


@pytest.mark.full
@pytest.mark.parametrize("exported", [False, True], ids=["checkpoint", "exported"])
def test_the_program_as_a_user_meets_it(model_folder, tmp_path: Path, exported: bool) -> None:
    output = tmp_path / "proofs.json"
    done = run("tools/verify.py", model_folder("contextlm", exported), "--output", str(output))
    assert done.returncode == 0, done.stderr
    proofs = {proof["claim"]: proof for proof in json.loads(output.read_text())["proofs"]}
    assert all(proof["holds"] for proof in proofs.values()), proofs
    assert proofs["tensor parallel over 2 = 1 process"]["deviation"] < 5e-5
    assert "FAILS" not in done.stdout


def test_what_is_no_checkpoint_is_said() -> None:
    done = run("tools/verify.py", "no/such")
    assert done.returncode == 1 and "no/such: holds no checkpoint" in done.stderr and "Traceback" not in done.stderr
