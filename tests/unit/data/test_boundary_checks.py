"""An option about the ends of documents is refused where there are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from contextlm.config.schema import Config, DataConfig, ModelConfig
from contextlm.data.byte_tokenizer import ByteTokenizer
from contextlm.data.datasets import Datasets, build_datasets
from contextlm.data.indexed_writer import IndexedWriter
from contextlm.errors import UserError

OPTIONS = ("reset_position_ids", "reset_attention_mask", "eod_mask_loss")


def build(prefix: str, tokenizer: ByteTokenizer, **options: bool) -> Datasets:
    data = DataConfig(data_path=(prefix,), split="1,0,0", **options)
    return build_datasets(Config(data=data, model=ModelConfig(seq_length=8)), tokenizer)


def write(folder: Path, name: str, *ends: list[int]) -> str:
    with IndexedWriter(folder / name, 257) as writer:
        for end in ends * 5:
            writer.add_document([1, 2, 3, 4, *end])
    return str(folder / name)


@pytest.mark.parametrize("option", OPTIONS)
def test_data_without_ends_is_refused(tmp_path: Path, option: str) -> None:
    tokenizer = ByteTokenizer()
    flag = "--" + option.replace("_", "-")
    without = write(tmp_path, "without", [5])
    with pytest.raises(
        UserError, match=f"{flag}: no document of .*without ends with the end-of-document token 256; make"
    ):
        build(without, tokenizer, **{option: True})
    build(without, tokenizer)
    # A document may have been cut short.
    build(write(tmp_path, "some", [5], [256]), tokenizer, **{option: True})


def test_a_tokenizer_without_ends_is_refused(tmp_path: Path) -> None:
    tokenizer = ByteTokenizer()
    tokenizer.eod = None
    with pytest.raises(
        UserError, match="--eod-mask-loss: the ByteTokenizer has no end-of-document token; name one with"
    ):
        build(write(tmp_path, "data", [256]), tokenizer, eod_mask_loss=True)
