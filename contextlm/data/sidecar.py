"""`PREFIX.json`, beside the `.bin` and `.idx` files: what was tokenized with which tokenizer.

Megatron's format says neither, so a wrong tokenizer would train silently. A dataset without the file
(Megatron wrote it) is accepted. Written by `indexed_writer.py`, compared by `dataset_checks.py`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from contextlm import atomic_files
from contextlm.errors import UserError

if TYPE_CHECKING:
    from contextlm.data.indexed import IndexedDataset


_PIECES, _PIECE_BYTES = 64, 1 << 16


class Source(NamedTuple):
    """An input.

    Attributes:
        name: its path as the user gave it, or what folder and glob made of it.
        num_bytes: its size; None where there is none, as of a pipe.
        sha256_of_ends: see `fingerprints.py`; None where it cannot be read twice.
    """

    name: str
    num_bytes: int | None = None
    sha256_of_ends: str | None = None


class Part(NamedTuple):
    """Which part of which run a dataset is.

    Attributes:
        run: sha256 (hex) of all that decides the tokens of the whole run: options, tokenizer, inputs.
        shard: this part, in `[0, num_shards)`; a whole run is part 0 of 1.
    """

    run: str
    shard: int = 0
    num_shards: int = 1


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where the tokens of a dataset come from.

    Attributes:
        tokenizer_type, tokenizer_fingerprint, vocab_size, eod: of the tokenizer that made it.
        text_bytes: UTF-8 bytes of the text they came from.
        append_eod: whether EOD ends each document that is not empty; None where that was not written down.
        rejects: lines, rows or documents that were left out.
        sources: the inputs, in order.
        part: None where that was not written down, or where datasets of several runs were merged.
    """

    tokenizer_type: str
    tokenizer_fingerprint: str
    vocab_size: int
    eod: int | None
    text_bytes: int
    append_eod: bool | None = None
    rejects: int = 0
    sources: tuple[Source, ...] = ()
    part: Part | None = None


@dataclass(frozen=True, kw_only=True)
class Sidecar(Origin):
    """Facts about one dataset.

    Attributes:
        documents: documents, empty ones included.
        tokens: token ids in the `.bin` file.
        max_token_id: largest id, -1 if there is none.
        bin_bytes, idx_sha256: of the two files this one describes.
        bin_sampled_sha256: see `sampled_sha256`; None where that was not written down.
    """

    documents: int
    tokens: int
    max_token_id: int
    bin_bytes: int
    idx_sha256: str
    bin_sampled_sha256: str | None = None

    def describes(self, dataset: IndexedDataset) -> bool:
        """Whether these are the facts about the files that were opened."""
        return (
            self.bin_bytes == dataset.bin_bytes
            and self.idx_sha256 == dataset.index_sha256
            and self.bin_sampled_sha256 in (None, sampled_sha256(f"{dataset.prefix}.bin"))
        )

    def write(self, prefix: str) -> None:
        """Write `PREFIX.json` atomically."""
        atomic_files.write_bytes(f"{prefix}.json", self.to_json())

    def to_json(self) -> bytes:
        """Content of the file."""
        content = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        content["sources"] = [source._asdict() for source in self.sources]
        content["part"] = self.part and self.part._asdict()
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        return text.encode(errors="backslashreplace")  # a file name need not be UTF-8, and this is how JSON writes it


def sampled_sha256(path: str | Path) -> str:
    """sha256 (hex) of 64 pieces of a file of 64 KiB each, both ends among them; of a smaller file, of all of it.

    It tells a corpus from another of the same size in a moment, however large they are. A byte that flipped between
    the pieces is not seen in it.
    """
    digest, size = hashlib.sha256(), Path(path).stat().st_size
    is_small = size <= _PIECES * _PIECE_BYTES
    begins = range(0, size, _PIECE_BYTES) if is_small else _spread(size - _PIECE_BYTES)
    with open(path, "rb") as stream:
        for begin in begins:
            stream.seek(begin)
            digest.update(stream.read(_PIECE_BYTES))
    return digest.hexdigest()


def _spread(last: int) -> list[int]:
    """Where the pieces begin, evenly from 0 to `last`."""
    return [place * last // (_PIECES - 1) for place in range(_PIECES)]


def read_sidecar(prefix: str) -> Sidecar | None:
    """The facts in `PREFIX.json`, or None where there is no such file.

    Raises:
        UserError: the file is not a sidecar.
    """
    path = Path(f"{prefix}.json")
    if not path.is_file():
        return None
    try:
        sidecar = _from_json(json.loads(path.read_text(encoding="utf-8")))
        if not all(isinstance(value, (int, str)) for value in (sidecar.max_token_id, sidecar.tokenizer_fingerprint)):
            raise TypeError("a field has the wrong type")
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} does not describe the dataset ({error!r}); restore it, make the dataset again, or "
            "remove the file to go without its checks"
        ) from None
    return sidecar


def _from_json(content: dict[str, Any]) -> Sidecar:
    facts = {
        field.name: content[field.name]
        for field in dataclasses.fields(Sidecar)
        if field.name in content or field.default is dataclasses.MISSING  # old files lack those with a default
    }
    facts["sources"] = tuple(Source(**source) for source in facts.get("sources", ()))
    facts["part"] = Part(**facts["part"]) if facts.get("part") else None
    return Sidecar(**facts)
