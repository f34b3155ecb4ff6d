"""Trains a byte-level BPE vocabulary, GPT-2's kind, on the text of documents.

Every text can be encoded, and decoding gives it back byte for byte. The program is `tools/train_tokenizer.py`;
the result, a `tokenizer.json` of Hugging Face's `tokenizers`, is read by `huggingface_tokenizer.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from contextlm import atomic_files
from contextlm.data.tokenizer_training import training_texts, units_to_train_on
from contextlm.errors import UserError

EOD_TOKEN = "<|endoftext|>"
MIN_VOCAB_SIZE = 258  # 256 bytes, EOD, and one pair at least


def train_byte_level_bpe(
    inputs: Sequence[str], output_prefix: str, vocab_size: int, json_key: str = "text", txt_documents: str = "file"
) -> Path:
    """Train on every document of `inputs` and write `{output_prefix}.json`; equal input gives equal files.

    Args:
        vocab_size: tokens in all, the 256 bytes and `<|endoftext|>` (EOD, id 0) included.
        json_key: key of the text in each line.
        txt_documents: what a document of a `.txt` file is; see `sources/units.py`.

    Raises:
        UserError: bad input or options, or a text too small for the vocabulary.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    problems = []
    if vocab_size < MIN_VOCAB_SIZE:
        problems.append(f"--vocab-size {vocab_size}: at least {MIN_VOCAB_SIZE} is needed, 256 of them for bytes")
    units = units_to_train_on(inputs, txt_documents, problems)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[EOD_TOKEN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(training_texts(units, json_key), trainer)
    found = tokenizer.get_vocab_size()
    if found < vocab_size:
        raise UserError(
            f"--vocab-size {vocab_size}: no pair occurs twice any more after {found} tokens; give more text, or "
            f"--vocab-size {found}"
        )
    path = Path(f"{output_prefix}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_files.write_bytes(path, (tokenizer.to_str(pretty=True) + "\n").encode())
    return path
