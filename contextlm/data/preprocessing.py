"""From documents to `PREFIX_KEY_document.bin/.idx/.json`, in constant memory.

They are read in batches (`sources/`), encoded in worker processes (`encoding_pool.py`, `document_encoding.py`), and
written in their order (`indexed_writer.py`). The program is `tools/preprocess_data.py`. Neither torch nor
megatron is imported.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

from contextlm.config.schema import DataConfig
from contextlm.data.document_encoding import EncodingSettings, tokenizer_of
from contextlm.data.encoding_pool import cores, encode_batches
from contextlm.data.fingerprints import run_fingerprint, sources_of
from contextlm.data.indexed_writer import IndexedWriter
from contextlm.data.reject_log import RejectLog
from contextlm.data.sidecar import Origin, Part
from contextlm.data.sources.batches import read_batches
from contextlm.data.sources.documents import Reject
from contextlm.data.sources.unit import Unit
from contextlm.data.sources.units import find_units
from contextlm.data.tokenizer_interface import Tokenizer
from contextlm.errors import UserError

BYTES_PER_WORKER = 2 << 20  # Below, a worker costs more than it gives.


@dataclass(frozen=True, kw_only=True)
class PreprocessingOptions:
    """What to tokenize, and how.

    Attributes:
        inputs: files, patterns, folders, `-`; see `sources/units.py`.
        output_prefix: the datasets are `{output_prefix}_{key}_document`.
        data: tokenizer type, model and EOD token.
        vocab_size: of `--vocab-size`, for the kinds of tokenizer that read it.
        json_keys: keys whose texts become a dataset each.
        append_eod: end each document that is not empty with EOD.
        txt_documents: what a document of a `.txt` file is: all of the `file`, or a block between `blank-line`s.
        workers: cores to use, all if None; a small input does not need them.
        on_error: `raise` at the first line that is no document, or `skip` it and log it.
    """

    inputs: tuple[str, ...]
    output_prefix: str
    data: DataConfig
    vocab_size: int | None = None
    json_keys: tuple[str, ...] = ("text",)
    append_eod: bool = False
    txt_documents: str = "file"
    workers: int | None = None
    on_error: str = "raise"

    @property
    def encoding(self) -> EncodingSettings:
        """What decides the tokens."""
        return EncodingSettings(self.data, self.json_keys, self.append_eod, self.vocab_size)

    def prefix(self, key: str) -> str:
        """Prefix of the dataset of one key."""
        return f"{self.output_prefix}_{key}_document"


@dataclass
class Progress:
    """How far it is; `documents` counts lines used, `tokens` and `text_bytes` are sums over the keys."""

    total_bytes: int  # 0 where it is not known
    read_bytes: int = 0
    documents: int = 0
    tokens: int = 0
    text_bytes: int = 0
    rejected: int = 0
    seconds: float = 0.0

    def plus(self, more: Progress) -> Progress:
        """What both have done, of our total."""
        sums = {name: value + getattr(more, name) for name, value in vars(self).items()}
        return Progress(**{**sums, "total_bytes": self.total_bytes})


class Plan(NamedTuple):
    """A run before its first byte is read.

    Attributes:
        units: all that there is to read.
        run: fingerprint of the run; see `fingerprints.py`.
    """

    units: list[Unit]
    tokenizer: Tokenizer
    run: str


def preprocess(
    options: PreprocessingOptions,
    report: Callable[[Progress], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
) -> Progress:
    """Write one dataset for each key; either all of them appear or none.

    Args:
        report: called after every batch.
        say: told, in a sentence, what is worth knowing while it happens.

    Raises:
        UserError: bad options, a line that is no document (`on_error="raise"`), nothing left to write.
    """
    plan = make_plan(options)
    return write_part(plan, options, plan.units, Part(plan.run), report, say)


def make_plan(options: PreprocessingOptions) -> Plan:
    """Look at inputs and tokenizer.

    Raises:
        UserError: all that is wrong with them.
    """
    units = _check(options)
    tokenizer = tokenizer_of(options.encoding)
    if options.append_eod and tokenizer.eod is None:
        raise UserError(f"--append-eod: this {tokenizer.kind} has no end-of-document token; set --eod-token")
    # Not on_error: what is finished has no rejects, or has them listed.
    more = {"json_keys": options.json_keys, "append_eod": options.append_eod}
    return Plan(units, tokenizer, run_fingerprint(units, tokenizer, more))


def write_part(
    plan: Plan,
    options: PreprocessingOptions,
    units: Sequence[Unit],
    part: Part,
    report: Callable[[Progress], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
) -> Progress:
    """Write the datasets of some of the units, under the output prefix of `options`."""
    began = time.perf_counter()
    progress = Progress(sum(unit.size for unit in units))
    tokenizer = plan.tokenizer
    sources = sources_of(units)
    text_bytes = [0] * len(options.json_keys)
    said: set[str] = set()
    with ExitStack() as stack:
        batches = encode_batches(options.encoding, read_batches(units, options.json_keys), _workers(options, progress))
        stack.enter_context(closing(batches))
        first = list(islice(batches, 1))  # The workers start, before the files of this process are opened.
        rejects = stack.enter_context(RejectLog(rejects_path(options)))
        writers = [
            stack.enter_context(IndexedWriter(options.prefix(key), tokenizer.vocab_size)) for key in options.json_keys
        ]
        for batch in chain(first, batches):
            if batch.rejects and options.on_error == "raise":
                raise _unusable(batch.rejects[0])
            rejects.add(batch.rejects)
            for notice in batch.notices:
                if notice not in said:
                    said.add(notice)
                    say(notice)
            for place, (writer, texts) in enumerate(zip(writers, batch.texts, strict=True)):
                writer.add_documents(texts.ids, texts.lengths, texts.sequences)
                text_bytes[place] += texts.text_bytes
            progress.read_bytes += batch.num_bytes
            progress.documents += len(batch.texts[0].sequences)
            progress.tokens = sum(writer.num_tokens for writer in writers)
            progress.text_bytes = sum(text_bytes)
            progress.rejected = rejects.count
            progress.seconds = time.perf_counter() - began
            report(progress)
        if not progress.documents and part.num_shards == 1:
            raise no_document(options)
        for writer, key_bytes in zip(writers, text_bytes, strict=True):
            writer.origin = Origin(
                tokenizer_type=tokenizer.kind,
                tokenizer_fingerprint=tokenizer.fingerprint,
                vocab_size=tokenizer.vocab_size,
                eod=tokenizer.eod,
                text_bytes=key_bytes,
                append_eod=options.append_eod,
                rejects=rejects.count,
                sources=sources,
                part=part,
            )
            writer.finish()
        rejects.finish()
    progress.seconds = time.perf_counter() - began
    return progress


def no_document(options: PreprocessingOptions) -> UserError:
    """The error of a run that found nothing to write."""
    return UserError(f"--input {' '.join(options.inputs)}: there is no usable document in it")


def rejects_path(options: PreprocessingOptions) -> Path:
    """Where the lines that were left out are listed, one JSON object each: file, line, reason."""
    return Path(f"{options.output_prefix}_rejects.jsonl")


def _check(options: PreprocessingOptions) -> list[Unit]:
    """What to read, once the options make sense."""
    problems = []
    if options.workers is not None and options.workers < 1:
        problems.append(f"--workers {options.workers}: at least 1 is needed")
    if not options.json_keys or len(set(options.json_keys)) < len(options.json_keys):
        problems.append(f"--json-keys {' '.join(options.json_keys)}: give each key once")
    try:
        units = find_units(options.inputs, options.txt_documents)
    except UserError as error:
        problems += error.problems
    if problems:
        raise UserError(*problems)
    return units


def _workers(options: PreprocessingOptions, progress: Progress) -> int:
    """Processes to start: none are worth it for an input of a few batches."""
    most = options.workers or cores()
    return most if progress.total_bytes == 0 else min(most, 1 + progress.total_bytes // BYTES_PER_WORKER)


def _unusable(reject: Reject) -> UserError:
    return UserError(
        f"{reject.path}:{reject.line}: {reject.reason}; mend it, or pass --on-error skip to leave such out"
    )
