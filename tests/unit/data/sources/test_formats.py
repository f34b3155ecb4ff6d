"""Documents written in any format read back the same, whatever the size of batches, whole or in shards."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contextlm.data.sources import documents, streams
from contextlm.data.sources.sharing import share
from contextlm.data.sources.unit import Unit
from contextlm.data.sources.units import find_units
from contextlm.errors import UserError
from tests.unit.data.sources.reading import PATIENT, items_of, texts_of


def json_lines(texts: list[str], last_newline: bool) -> bytes:
    lines = [json.dumps({"n": n, "text": text}, ensure_ascii=bool(n % 2)) for n, text in enumerate(texts)]
    return ("\n".join(lines) + "\n" * (last_newline and bool(lines))).encode()


def packed(suffix: str, compress: Callable[[bytes], bytes]):
    """Two members, as two files put together with `cat` are."""

    def write(folder: Path, texts: list[str], odd: bool) -> str:
        content = json_lines(texts, odd)
        cut = len(content) // 2
        (folder / f"a{suffix}").write_bytes(compress(content[:cut]) + compress(content[cut:]))
        return str(folder / f"a{suffix}")

    return write


def zstandard_compress(content: bytes) -> bytes:
    return pytest.importorskip("zstandard").compress(content)


def write_lines(folder: Path, texts: list[str], odd: bool) -> str:
    (folder / "a.jsonl").write_bytes(json_lines(texts, odd))
    return str(folder / "a.jsonl")


def write_parquet(folder: Path, texts: list[str], odd: bool) -> str:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    column = pyarrow.array(texts, pyarrow.large_string() if odd else pyarrow.string())
    table = pyarrow.table({"n": list(range(len(texts))), "text": column})
    parquet.write_table(table, folder / "a.parquet", row_group_size=3)
    return str(folder / "a.parquet")


def write_txt(folder: Path, texts: list[str], odd: bool) -> str:
    (folder / "txt").mkdir()
    for number, text in enumerate(texts):
        mark = "\ufeff" if odd or text.startswith("\ufeff") else ""
        (folder / "txt" / f"{number:03d}.txt").write_bytes((mark + text).encode())
    return str(folder / "txt")


FORMATS = {
    "jsonl": write_lines,
    "gz": packed(".json.gz", gzip.compress),
    "bz2": packed(".jsonl.bz2", bz2.compress),
    "xz": packed(".ndjson.xz", lzma.compress),
    "zst": packed(".jsonl.zst", zstandard_compress),
    "parquet": write_parquet,
    "txt": write_txt,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("formats") / "here"


def check(units: list[Unit], expected: list[str], batch_bytes: int, num_shards: int) -> None:
    documents._lines_before.cache_clear()  # Each example has other files of the same names.
    assert texts_of(units, batch_bytes) == expected
    shards = [share(units, num_shards, shard) for shard in range(num_shards)]
    parts = [item for shard in shards for item in items_of(shard, batch_bytes)]
    whole = items_of(units)
    assert [item.texts for item in parts] == [item.texts for item in whole]
    # A shard counts lines from the beginning of the file too.
    assert [(item.place.path, item.place.line) for item in parts] == [
        (item.place.path, item.place.line) for item in whole
    ]


@pytest.mark.parametrize("name", FORMATS)
@settings(PATIENT, max_examples=20)
@given(
    texts=st.lists(st.text(max_size=300), min_size=1, max_size=12),
    odd=st.booleans(),
    batch_bytes=st.integers(1, 400),
    block_bytes=st.integers(1, 400),
    num_shards=st.integers(1, 6),
)
def test_any_documents_read_back(
    folder: Path, name: str, texts: list[str], odd: bool, batch_bytes: int, block_bytes: int, num_shards: int
) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "BLOCK_BYTES", block_bytes)
        patch.setattr(streams, "FEED_BYTES", 1 + block_bytes // 3)
        check(find_units([FORMATS[name](folder, texts, odd)]), texts, batch_bytes, num_shards)


line = st.text(st.characters(exclude_characters="\n", codec="utf-8"), max_size=60).map(lambda text: text.strip() + ".")


@settings(PATIENT, max_examples=40)
@given(
    blocks=st.lists(st.lists(line, min_size=1, max_size=4), min_size=1, max_size=8),
    end=st.sampled_from(["\n", "\r\n"]),
    blank=st.sampled_from(["{}", "{}{}", " \t{}", "{} {}"]),
    batch_bytes=st.integers(1, 200),
    block_bytes=st.integers(1, 200),
)
def test_any_blocks_between_blank_lines_read_back(
    folder: Path, blocks: list[list[str]], end: str, blank: str, batch_bytes: int, block_bytes: int
) -> None:
    folder.mkdir(exist_ok=True)
    texts = [end.join(lines) for lines in blocks]
    (folder / "a.txt").write_bytes((end + blank.replace("{}", end)).join(texts).encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "BLOCK_BYTES", block_bytes)
        units = find_units([str(folder / "a.txt")], "blank-line")
        assert texts_of(units, batch_bytes) == [
            text.removeprefix("\ufeff") if not n else text for n, text in enumerate(texts)
        ]
        numbers = [item.place.line for item in items_of(units)]
    assert numbers == [1 + sum(len(lines) + blank.count("{}") for lines in blocks[:n]) for n in range(len(blocks))]


def test_saved_and_local_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    for place in ("datasets.config", "huggingface_hub.constants"):
        monkeypatch.setattr(f"{place}.HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    texts = ["ab" * n for n in range(40)]
    table = datasets.Dataset.from_dict({"id": list(range(40)), "text": texts})
    table.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": table, "test": table.select(range(3))}).save_to_disk(tmp_path / "two")
    (tmp_path / "three").mkdir()
    write_parquet(tmp_path / "three", texts, False)
    for name, expected in (("one", texts), ("two", texts), ("two:test", texts[:3]), ("three:train", texts)):
        check(find_units([f"hf://{tmp_path}/{name}"]), expected, 300, 4)
    (reject,) = items_of(find_units([f"hf://{tmp_path}/three"]), key="body")
    assert (reject.line, reject.reason) == (1, "no column 'body'; columns: 'n', 'text'")
    for wrong, sentence in (
        (f"hf://{tmp_path}/two:valid", "no split 'valid'; splits: train, test"),
        ("hf://a:b:c:d", "a dataset is named hf://NAME, hf://NAME:SPLIT or hf://NAME:CONFIG:SPLIT"),
        (str(tmp_path), f"was made by save_to_disk; --input hf://{tmp_path}/"),
    ):
        with pytest.raises(UserError) as raised:
            find_units([wrong])
        assert str(raised.value).startswith(f"--input {wrong}: ") and sentence in str(raised.value)
    with pytest.raises(UserError, match="--input hf://no/such: `datasets` cannot open it"):
        items_of(find_units(["hf://no/such"]))


@pytest.mark.parametrize("value", [["a", "b"], []])
def test_lists_of_sentences(tmp_path: Path, value: list[str]) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(
        pyarrow.table({"text": pyarrow.array([value], pyarrow.list_(pyarrow.string()))}), tmp_path / "a.parquet"
    )
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": value}))
    for name in ("a.parquet", "a.jsonl"):
        (item,) = items_of(find_units([str(tmp_path / name)]))
        assert item.texts == [value]
