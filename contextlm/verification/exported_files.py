"""Is an exported folder what it was when it was proved: the code of our class, and the files of its certificate?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from contextlm.data.indexed import file_sha256
from contextlm.errors import UserError
from contextlm.interop import huggingface_model
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


def _certificate(folder: Path) -> list[Proof]:
    """The files have the checksums that the conversion wrote down."""
    path = folder / CERTIFICATE
    if not path.is_file():
        return []
    claim = "its files are those of the parity certificate"
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        sums = dict(content["sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: is damaged ({error!r}); export the model again") from None
    wrong = [
        name
        for name, expected in sorted(sums.items())
        if not (folder / name).is_file() or file_sha256(folder / name) != expected
    ]
    remark = f"{', '.join(wrong)}: not the files that were proved" if wrong else f"{len(sums)} files"
    return [Proof(claim, None, 0.0, remark, fails=bool(wrong))]
