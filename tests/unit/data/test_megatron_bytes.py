"""What preprocessing writes, byte for byte, against Megatron-LM's format written down by hand.

Checked by hand against the tool itself on 2026-11-26: core_v0.16.1's tools/preprocess_data.py, with GPT-2's files as
GPT2BPETokenizer (--legacy-tokenizer), wrote the .bin and .idx that ours wrote for nine documents like these, with and
without --append-eod, and for 20 MB of English. What differs on purpose is left out here: special-token text.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from contextlm.config.schema import DataConfig
from contextlm.data.preprocessing import PreprocessingOptions, preprocess

EOD = 256
# Text -> the lengths of its sequences; an EOD, where there is one, belongs to the last of them.
DOCUMENTS = [
    ("ab", ["ab"]),
    ("", []),
    (["c", "", "de"], ["c", "de"]),
    ([], []),
    ([""], []),
    ("é\n", ["é\n"]),
    (" ", [" "]),
    ("\u2028\0", ["\u2028\0"]),
]


def expected_files(append_eod: bool) -> tuple[bytes, bytes]:
    """`.bin` and `.idx` of DOCUMENTS, from the description of the format."""
    tokens: list[int] = []
    lengths: list[int] = []
    offsets: list[int] = []
    starts = [0]
    for _, sequences in DOCUMENTS:
        for number, sequence in enumerate(sequences):
            ids = list(sequence.encode()) + [EOD] * (append_eod and number == len(sequences) - 1)
            offsets.append(2 * len(tokens))
            lengths.append(len(ids))
            tokens += ids
        starts.append(len(lengths))
    index = b"MMIDIDX\x00\x00" + struct.pack("<Q", 1) + bytes([8])  # version; 8: unsigned, two bytes
    index += struct.pack("<QQ", len(lengths), len(starts))
    index += struct.pack(f"<{len(lengths)}i", *lengths) + struct.pack(f"<{len(offsets)}q", *offsets)
    index += struct.pack(f"<{len(starts)}q", *starts)
    return struct.pack(f"<{len(tokens)}H", *tokens), index


def written(folder: Path, text: str, **options: object) -> tuple[bytes, bytes]:
    corpus = folder / "odd.jsonl"
    corpus.write_text(text, encoding="utf-8", newline="")
    data = DataConfig(tokenizer_type="ByteTokenizer")
    preprocess(PreprocessingOptions(inputs=(str(corpus),), output_prefix=str(folder / "odd"), data=data, **options))
    prefix = str(folder / "odd_text_document")
    return Path(f"{prefix}.bin").read_bytes(), Path(f"{prefix}.idx").read_bytes()


@pytest.mark.parametrize("append_eod", [True, False])
@pytest.mark.parametrize(("line_end", "last"), [("\n", ""), ("\n", "\n"), ("\r\n", "\r\n"), (" \n ", "")])
def test_bytes_are_those_of_the_format(tmp_path: Path, append_eod: bool, line_end: str, last: str) -> None:
    for ensure_ascii in (True, False):
        lines = [json.dumps({"id": 1, "text": text}, ensure_ascii=ensure_ascii) for text, _ in DOCUMENTS]
        found = written(tmp_path, line_end.join(lines) + last, append_eod=append_eod)
        assert found == expected_files(append_eod)


def test_every_key_is_complete(tmp_path: Path) -> None:
    """The real tool finishes the index of the last key only."""
    lines = [json.dumps({"title": "t", "text": text}) for text, _ in DOCUMENTS]
    files = written(tmp_path, "\n".join(lines), json_keys=("text", "title"), append_eod=True)
    assert files == expected_files(True)
    alone = tmp_path / "alone"
    alone.mkdir()
    titles = written(alone, "\n".join(json.dumps({"text": "t"}) for _ in DOCUMENTS), append_eod=True)
    prefix = tmp_path / "odd_title_document"
    assert (Path(f"{prefix}.bin").read_bytes(), Path(f"{prefix}.idx").read_bytes()) == titles
