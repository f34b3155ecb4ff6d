"""The study's tokens: a dataset that is there, or text that is tokenized once.

What is made lies in FOLDER/data/DIGEST/, with the digest of the text and of the tokenizer's settings: another text
makes another dataset, and runs that were trained on the old one are known by its name.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from contextlm.comparison.study import Source
from contextlm.config.schema import DataConfig
from contextlm.data.sources.unit import STDIN
from contextlm.data.sources.units import find_units
from contextlm.errors import UserError

_KIND = "bpe"  # of a vocabulary that is trained here


def data_config(source: Source) -> DataConfig:
    """Dataset and tokenizer of all runs, with places relative to the study's folder, or absolute; makes nothing.

    Raises:
        UserError: no text and no dataset, or one that is not there.
    """
    model = None if source.tokenizer_model is None else os.path.abspath(source.tokenizer_model)
    given = DataConfig(tokenizer_type=source.tokenizer_type, tokenizer_model=model, eod_token=source.eod_token)
    if source.prefix is not None:
        prefix = os.path.abspath(source.prefix)
        if not Path(f"{prefix}.idx").is_file():
            raise UserError(f"data.prefix {source.prefix}: no {prefix}.idx; make it with tools/preprocess_data.py")
        return dataclasses.replace(given, data_path=(prefix,))
    if source.text is None:
        raise UserError(
            "--text: no text; give --text FILE.jsonl (one object with a `text` per line), or data in the study file; "
            "python examples/quickstart/corpus.py --output corpus.jsonl makes a small one"
        )
    place = f"data/{_digest(source, _files(source.text))}"
    tokens = (f"{place}/tokens_text_document",)
    if source.vocab_size is None:
        return dataclasses.replace(given, data_path=tokens)
    trained = f"{place}/tokenizer.model"
    return DataConfig(data_path=tokens, tokenizer_type="SentencePieceTokenizer", tokenizer_model=trained)


def prepare(source: Source, folder: Path, workers: int) -> DataConfig:
    """Make what `data_config` names, unless it is there.

    Args:
        folder: of the study.
        workers: processes that tokenize.
    """
    data = data_config(source)
    if source.prefix is not None:
        return data
    from contextlm.data.preprocessing import PreprocessingOptions, preprocess
    from contextlm.data.progress import ProgressDisplay
    from contextlm.data.tokenizer_training import train_sentencepiece

    assert source.text is not None
    tokenizer = None if data.tokenizer_model is None else str(folder / data.tokenizer_model)
    prefix = str(folder / data.data_path[0])
    if source.vocab_size is not None and tokenizer is not None and not Path(tokenizer).is_file():
        print(f"tokenizer: {source.vocab_size} pieces from {source.text}", flush=True)
        train_sentencepiece([source.text], tokenizer.removesuffix(".model"), source.vocab_size, _KIND)
    if not Path(f"{prefix}.json").is_file():  # written last
        print(f"tokens: {source.text}", flush=True)
        Path(prefix).parent.mkdir(parents=True, exist_ok=True)
        options = PreprocessingOptions(
            inputs=(source.text,),
            output_prefix=prefix.removesuffix("_text_document"),
            data=dataclasses.replace(data, data_path=(), tokenizer_model=tokenizer),
            append_eod=True,
            workers=workers,
        )
        with ProgressDisplay(log_interval=5000, stream=sys.stderr) as display:
            preprocess(options, display.update)
    return data


def _files(text: str) -> list[str]:
    """The files that --text names; a dataset of the Hub is one by its name."""
    if text == STDIN:
        raise UserError("--text -: the text is read several times; write it to a file")
    try:
        return [unit.path for unit in find_units([text])]
    except UserError as error:
        told = [problem.replace("--input", "--text", 1) for problem in error.problems]
        raise UserError(*told) from None


def _digest(source: Source, files: Sequence[str]) -> str:
    """Names the dataset: what is in the text, and what tokenizes it."""
    digest = hashlib.sha256(f"{source.vocab_size} {_KIND} {source.tokenizer_type} {source.eod_token}".encode())
    for name in (*files, source.tokenizer_model):
        if name is not None and Path(name).is_file():
            with open(name, "rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        elif name is not None:
            digest.update(name.encode())
    return digest.hexdigest()[:12]
