"""Trains a SentencePiece vocabulary on the text of documents.

The settings make encoding lossless: no normalisation, spaces and newlines kept as they are, no space added in
front, and any character outside the vocabulary falls back to its bytes. The program is
`tools/train_tokenizer.py`; the result is read by `sentencepiece_tokenizer.py`.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from contextlm import atomic_files
from contextlm.data.sources.batches import read_batches
from contextlm.data.sources.documents import Reject
from contextlm.data.sources.unit import Unit
from contextlm.data.sources.units import find_units
from contextlm.errors import UserError

MODEL_TYPES = ("unigram", "bpe")
MIN_VOCAB_SIZE = 300  # 256 bytes, the unknown piece and EOD, and room for some text
# SentencePiece drops longer sentences without a word.
SENTENCE_CHARACTERS = 1000
SENTENCE_BYTES = 4 * SENTENCE_CHARACTERS


def train_sentencepiece(
    inputs: Sequence[str],
    output_prefix: str,
    vocab_size: int,
    model_type: str = "unigram",
    json_key: str = "text",
    txt_documents: str = "file",
) -> Path:
    """Train on every document of `inputs` and write `{output_prefix}.model`; equal input gives equal files.

    Args:
        vocab_size: pieces in all, the 256 bytes, the unknown piece and `</s>` (EOD) included.
        model_type: `unigram` or `bpe`.
        json_key: key of the text in each line.
        txt_documents: what a document of a `.txt` file is; see `sources/units.py`.

    Raises:
        UserError: bad input or options, or a text too small for the vocabulary.
    """
    import sentencepiece

    problems = []
    if vocab_size < MIN_VOCAB_SIZE:
        problems.append(f"--vocab-size {vocab_size}: at least {MIN_VOCAB_SIZE} is needed, 256 of them for bytes")
    if model_type not in MODEL_TYPES:
        problems.append(f"--model-type {model_type}: choose one of {', '.join(MODEL_TYPES)}")
    units = units_to_train_on(inputs, txt_documents, problems)
    model = io.BytesIO()
    failures: list[UserError] = []
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_sentences(units, json_key, failures),
            model_writer=model,
            model_type=model_type,
            vocab_size=vocab_size,
            byte_fallback=True,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            split_digits=True,
            character_coverage=0.9995,
            max_sentence_length=SENTENCE_BYTES,
            unk_id=0,
            eos_id=1,
            bos_id=-1,
            pad_id=-1,
            num_threads=1,  # The order of floating-point sums must not depend on the machine.
            minloglevel=2,
        )
    except RuntimeError as error:
        if failures:
            raise failures[0] from None
        reason = str(error).rsplit("] ", 1)[-1].strip()
        raise UserError(f"--vocab-size {vocab_size}: SentencePiece cannot train this ({reason})") from None
    path = Path(f"{output_prefix}.model")
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_files.write_bytes(path, model.getvalue())
    return path


def _sentences(units: list[Unit], json_key: str, failures: list[UserError]) -> Iterator[str]:
    """Lines of text, newlines kept, cut so that none is dropped for its length.

    The library turns an exception in here into a RuntimeError of its own, so it is also kept in `failures`.
    """
    found = False
    try:
        for text in training_texts(units, json_key):
            for sentence in text.splitlines(keepends=True):
                for start in range(0, len(sentence), SENTENCE_CHARACTERS):
                    found = True
                    yield sentence[start : start + SENTENCE_CHARACTERS]
        if not found:
            raise UserError(f"--input {' '.join(unit.path for unit in units)}: there is no text in it")
    except UserError as error:
        failures.append(error)
        raise


def units_to_train_on(inputs: Sequence[str], txt_documents: str, problems: Sequence[str]) -> list[Unit]:
    """What there is to read.

    Raises:
        UserError: `problems` found before, and everything that is wrong with the inputs.
    """
    try:
        units = find_units(inputs, txt_documents)
    except UserError as error:
        raise UserError(*problems, *error.problems) from None
    if problems:
        raise UserError(*problems)
    return units


def training_texts(units: list[Unit], json_key: str) -> Iterator[str]:
    """The text of every document.

    Raises:
        UserError: something that is no document; a vocabulary is trained on all of the text or not at all.
    """
    for batch in read_batches(units, [json_key]):
        for item in batch.documents():
            if isinstance(item, Reject):
                raise UserError(f"{item.path}:{item.line}: {item.reason}; mend or remove it")
            yield from item.texts[0]
