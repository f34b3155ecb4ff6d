"""Is an exported folder what it was when it was proved: the code of our class, and the files of its certificate?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from contextlm.data.indexed import file_sha256
from contextlm.errors import UserError
from contextlm.inference.subject import Subject
from contextlm.interop import huggingface_model, parity
from contextlm.verification.proof import Proof

CERTIFICATE = "parity.json"
_PATTERN = "*_contextlm.py"


def exported_files(folder: Path) -> list[Proof]:
    """Compare what is there; what a folder of another origin does not have is left out."""
    return [*_code(folder), *_certificate(folder)]


def _code(folder: Path) -> list[Proof]:
    """The model's files, which other people's programs run, are those that were proved here."""
    files = sorted(folder.glob(_PATTERN))
    if not files:
        return []
    ours = Path(huggingface_model.__path__[0])
    names = {path.name for path in files} | {path.name for path in ours.glob(_PATTERN)}
    different = [
        name
        for name in sorted(names)
        if not (folder / name).is_file()
        or not (ours / name).is_file()
        or (folder / name).read_bytes() != (ours / name).read_bytes()
    ]
    claim = "its code is ContextLM's"
    if different:
        remark = f"{', '.join(different)}: not as here; examine it with --trust-remote-code, which runs it"
        return [Proof(claim, None, 0.0, remark, fails=True)]
    return [Proof(claim, None, 0.0, f"{len(names)} files, byte for byte")]


def certified_logits(examined: Subject) -> list[Proof]:
    """The model still gives the logits that were compared when it was exported: another chunk size or shift would not.

    The certificate keeps the largest of them, over probes with the gate as it is and opened.
    """
    content = _certificate_of(examined.folder)
    if content is None:
        return []
    found = parity.logits_of_theirs(examined.model, examined.tokenizer.vocab_size, examined.num_positions)
    largest = max(logits.abs().max().item() for logits in found)
    expected = content["max_abs_logit"]
    remark = f"the largest logit was {expected:.6g}, and is {largest:.6g}"
    claim = "its logits are those of the parity certificate"
    return [Proof(claim, abs(largest - expected) / expected, parity.TOLERANCE, remark)]


def _certificate(folder: Path) -> list[Proof]:
    """The files have the checksums that the conversion wrote down."""
    content = _certificate_of(folder)
    if content is None:
        return []
    wrong = [
        name
        for name, expected in sorted(content["sha256"].items())
        if not (folder / name).is_file() or file_sha256(folder / name) != expected
    ]
    remark = f"{', '.join(wrong)}: not as proved" if wrong else f"{len(content['sha256'])} with a checksum"
    return [Proof("its files are those of the parity certificate", None, 0.0, remark, fails=bool(wrong))]


def _certificate_of(folder: Path) -> dict[str, Any] | None:
    """What an export wrote beside the model; None in folders of another origin."""
    path = folder / CERTIFICATE
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text())
        return {"sha256": dict(content["sha256"]), "max_abs_logit": float(content["max_abs_logit"])}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: is damaged ({error!r}); export the model again") from None
