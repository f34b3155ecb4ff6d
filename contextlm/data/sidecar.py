"""`PREFIX.json`, beside the `.bin` and `.idx` files: what was tokenized with which tokenizer.

Megatron's format says neither, so a wrong tokenizer would train silently. A dataset without the file
(Megatron wrote it) is accepted. Written by `preprocessing.py`, compared by `dataset_checks.py`.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from contextlm import atomic_files
from contextlm.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Sidecar:
    """Facts about one dataset.

    Attributes:
        tokenizer_type, tokenizer_fingerprint, vocab_size, eod: of the tokenizer that made it.
        documents: documents, empty ones included.
        tokens: token ids in the `.bin` file.
        text_bytes: UTF-8 bytes of the text they came from.
        max_token_id: largest id, -1 if there is none.
        bin_bytes, idx_sha256: of the two files this one describes.
    """

    tokenizer_type: str
    tokenizer_fingerprint: str
    vocab_size: int
    eod: int | None
    documents: int
    tokens: int
    text_bytes: int
    max_token_id: int
    bin_bytes: int
    idx_sha256: str

    def write(self, prefix: str) -> None:
        """Write `PREFIX.json` atomically."""
        atomic_files.write_json(f"{prefix}.json", dataclasses.asdict(self))


def read_sidecar(prefix: str) -> Sidecar | None:
    """The facts in `PREFIX.json`, or None where there is no such file.

    Raises:
        UserError: the file is not a sidecar.
    """
    path = Path(f"{prefix}.json")
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        sidecar = Sidecar(**{field.name: content[field.name] for field in dataclasses.fields(Sidecar)})
        if not all(isinstance(value, (int, str)) for value in (sidecar.max_token_id, sidecar.tokenizer_fingerprint)):
            raise TypeError("a field has the wrong type")
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} does not describe the dataset ({error!r}); restore it, make the dataset again, or "
            "remove the file to go without its checks"
        ) from None
    return sidecar
