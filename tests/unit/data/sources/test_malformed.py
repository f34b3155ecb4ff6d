"""Whatever a file holds: what can be used is used, the rest is a reject with file, line and reason."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import random
import subprocess
import sys
from pathlib import Path

import pytest

from contextlm.config.schema import DataConfig
from contextlm.data.preprocessing import PreprocessingOptions, preprocess
from contextlm.data.sources import json_lines, plain_text
from contextlm.errors import UserError
from tests.unit.data.sources.reading import read

A, B = b'{"text": "a"}\n', b'{"text": "b"}\n'
NOISE = random.Random(1).randbytes(3000).hex()  # does not become small when packed
LINES = b"".join(json.dumps({"text": f"{n} {NOISE[n : n + 2000]}"}).encode() + b"\n" for n in range(100))
TEXTS = [json.loads(line)["text"] for line in LINES.splitlines()]


def zstandard(content: bytes) -> bytes:
    return pytest.importorskip("zstandard").ZstdCompressor(write_checksum=True).compress(content)


PACKERS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstandard}

# Name of the file, its content, the texts of its documents, and for each reject its line and a part of its reason.
LINE_CASES = {
    "one bad line": ("a.jsonl", A + b"{\n" + B, ["a", "b"], [(2, "not valid JSON")]),
    "nothing": ("a.jsonl", b"", [], []),
    "blank lines": ("a.jsonl", b"\n \r\n\t\n" + A + b"\n\n" + B, ["a", "b"], []),
    "CRLF": ("a.jsonl", A.replace(b"\n", b"\r\n") + B.replace(b"\n", b"\r\n"), ["a", "b"], []),
    "CR alone": ("a.jsonl", A.strip() + b"\r" + B, [], [(1, "not valid JSON (Extra data")]),
    "no last newline": ("a.jsonl", A + B[:-1], ["a", "b"], []),
    "cut off": ("a.jsonl", A + B[:-4], ["a"], [(2, "not valid JSON")]),
    "byte order mark": ("a.jsonl", b"\xef\xbb\xbf" + A + B, ["a", "b"], []),
    "byte order marks of joined files": ("a.jsonl", A + b"\xef\xbb\xbf" + B, ["a", "b"], []),
    "UTF-16": ("a.jsonl", (A + B).decode().encode("utf-16"), [], [(1, "UTF-16 text; `iconv")]),
    "UTF-16 without a mark": ("a.jsonl", (A + B).decode().encode("utf-16-be"), [], [(1, "not"), (2, "not")]),
    "Latin-1": ("a.jsonl", A + b'{"text": "caf\xe9"}\n' + B, ["a", "b"], [(2, "not valid UTF-8 (byte 13")]),
    "half a character": ("a.jsonl", b'{"text": "\xe2\x82"}\n' + B, ["b"], [(1, "not valid UTF-8")]),
    "a surrogate in UTF-8": ("a.jsonl", b'{"text": "\xed\xa0\x80"}\n' + B, ["b"], [(1, "not valid UTF-8")]),
    "NUL bytes": ("a.jsonl", A + b"\0" * 9000 + b"\n" + B, ["a", "b"], [(2, "not valid JSON")]),
    "NUL in a text": ("a.jsonl", b'{"text": "x\0y"}\n' + B, ["b"], [(1, "not valid JSON (Invalid control character")]),
    "NUL escaped": ("a.jsonl", b'{"text": "x\\u0000y"}\n', ["x\0y"], []),
    "missing key": ("a.jsonl", b'{"txt": "a", "n": 1}\n{}\n' + B, ["b"], [(1, "line: 'txt', 'n'"), (2, "none")]),
    "values": (
        "a.jsonl",
        b"".join(b'{"text": %s}\n' % value for value in (b"1", b"1.5", b"null", b"true", b"{}", b"[1]", b"[[]]")) + B,
        ["b"],
        list(enumerate(("a number", "a number", "null", "true or false", "an object", "a number", "a list"), 1)),
    ),
    "no objects": (
        "a.jsonl",
        b'[]\n"text"\n3\nnull\n' + B,
        ["b"],
        [(1, "not a list"), (2, "not text"), (3, "not a number"), (4, "not null")],
    ),
    "a list over several lines": ("a.json", b"[\n" + A + b"]\n", ["a"], [(1, "`jq -c .[]`"), (3, "not valid JSON")]),
    "deep nesting": ("a.jsonl", b'{"text": ' + b"[" * 100_000 + b"\n" + B, ["b"], [(1, "nested too deeply")]),
    "deep, closed": ("a.jsonl", b'{"n": ' + b"[" * 99_999 + b"]" * 99_999 + b"}\n" + B, ["b"], [(1, "nested too")]),
    "not too deep": ("a.jsonl", b'{"n": ' + b"[" * 300 + b"]" * 300 + b', "text": "a"}\n', ["a"], []),
    "a long number": ("a.jsonl", b'{"n": ' + b"1" * 10_000 + b', "text": "a"}\n' + B, ["a", "b"], []),
    "NaN": ("a.jsonl", b'{"n": NaN, "m": -Infinity, "text": "a"}\n' + B, ["a", "b"], []),
    "a key twice": ("a.jsonl", b'{"text": 1, "text": "a"}\n', ["a"], []),
    "lone surrogates": (
        "a.jsonl",
        b'{"text": "\\ud800"}\n{"text": "b", "n": "\\udfff"}\n{"text": "\\ud83d\\ude00"}\n',
        ["b", "\U0001f600"],
        [(1, "lone surrogate")],
    ),
    "a gzip file by another name": ("a.jsonl", gzip.compress(LINES), [], [(1, "gzip data; name the file .jsonl.gz")]),
    "a name that says nothing": ("part-00000", A + B, ["a", "b"], []),
}  # fmt: skip

# How a file is made, how many documents are in it, or at least are, and a part of the reason of its one reject.
PACKED_CASES = {
    "whole": (lambda pack: pack(LINES), 100, None),
    "members": (lambda pack: pack(LINES[:5000]) + pack(b"") + pack(LINES[5000:]), 100, None),
    "zeros after it": (lambda pack: pack(LINES) + b"\0" * 20_000, 100, None),
    "zeros within": (lambda pack: pack(LINES[:5000]) + b"\0" * 1024 + pack(LINES[5000:]), 100, None),
    "cut off": (lambda pack: pack(LINES) + pack(LINES)[:-1], 100, "the file was cut off"),
    "cut in the middle": (lambda pack: pack(LINES) + half(pack(LINES)), 100, "the file was cut off"),
    "cut after a whole line": (lambda pack: pack(LINES) + pack(A[:-1])[:-1], 100, "the file was cut off"),
    "garbage after it": (lambda pack: pack(LINES) + b"garbage and more of it", 100, "garbage, or damaged data, after"),
    "damage within": (lambda pack: pack(LINES) + half(pack(LINES)) + b"?" * 9000, 100, "data"),
    "nothing": (lambda pack: b"", 0, "the file is empty"),
    "another thing": (lambda pack: LINES, 0, "damaged"),
}  # fmt: skip


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def check(path: Path, content: bytes, texts: list[str], rejects: list[tuple[int, str]], **how: str) -> None:
    path.write_bytes(content)
    for batch_bytes in (1, 1 << 18):
        found_texts, found = read(path, batch_bytes=batch_bytes, **how)
        assert found_texts == texts
        assert [(reject.path, reject.line) for reject in found] == [(str(path), line) for line, _ in rejects], found
        for (_, part), reject in zip(rejects, found, strict=True):
            assert part in reject.reason


@pytest.mark.parametrize("without_orjson", [False, True])
@pytest.mark.parametrize("case", LINE_CASES)
def test_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, without_orjson: bool) -> None:
    if without_orjson:
        monkeypatch.setattr(json_lines, "_fast_loads", lambda: lambda line: None)
    name, content, texts, rejects = LINE_CASES[case]
    check(tmp_path / name, content, texts, rejects)


@pytest.mark.parametrize("suffix", PACKERS)
@pytest.mark.parametrize("case", PACKED_CASES)
def test_packed_files(tmp_path: Path, case: str, suffix: str) -> None:
    """What can be unpacked is kept, the rest is one reject."""
    make, documents, reason = PACKED_CASES[case]
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(make(PACKERS[suffix]))
    texts, rejects = read(path)
    assert texts[:documents] == TEXTS[:documents] and documents <= len(texts)
    assert len(texts) == documents or reason is not None
    assert len(rejects) == (reason is not None)
    for reject in rejects:
        assert (reject.path, reject.line) == (str(path), len(texts) + 1) and reason in reject.reason


def test_zstandard_as_other_programs_write_it(tmp_path: Path) -> None:
    """`zstd --long=28`, which its own default refuses to read, and the frames for readers to skip of `pzstd`."""
    library = pytest.importorskip("zstandard")
    parameters = library.ZstdCompressionParameters.from_level(1, window_log=28)
    packer = library.ZstdCompressor(compression_params=parameters).compressobj()
    long = packer.compress(LINES) + packer.flush()
    with pytest.raises(library.ZstdError, match="too much memory"):
        library.ZstdDecompressor().decompressobj().decompress(long)
    skipped = b"\x50\x2a\x4d\x18\x04\0\0\0" + b"size"
    (tmp_path / "a.jsonl.zst").write_bytes(skipped + long + skipped + zstandard(LINES) + skipped)
    assert read(tmp_path / "a.jsonl.zst") == (TEXTS * 2, [])


@pytest.mark.parametrize(
    ("how", "content", "texts", "rejects"),
    [
        ("file", b"", [""], []),
        ("file", b"a\r\n\r\nb\n", ["a\r\n\r\nb\n"], []),
        ("file", b"\xef\xbb\xbfa", ["a"], []),
        ("file", b"a\n\xff", [], [(1, "not valid UTF-8 (byte 2 of the document)")]),
        ("blank-line", b"", [], []),
        ("blank-line", b"\n\n  \n", [], []),
        ("blank-line", b"a\n\n \n\t", ["a"], []),
        ("blank-line", b"a\n\t", ["a"], []),
        ("blank-line", b" ", [], []),
        ("blank-line", b"\xef\xbb\xbfa\r\nb\r\n\r\nc", ["a\r\nb", "c"], []),
        ("blank-line", b"\na\n\n\n\xff\nb\n\nc\n", ["a", "c"], [(5, "not valid UTF-8 (byte 0 of the document)")]),
        ("blank-line", b"a\n\0\nb\n\nc", ["a\n\0\nb", "c"], []),
    ],
)
def test_plain_text(tmp_path: Path, how: str, content: bytes, texts: list[str], rejects: list[tuple[int, str]]) -> None:
    check(tmp_path / "a.txt", content, texts, rejects, txt_documents=how)


def test_packed_text_that_was_cut_off(tmp_path: Path) -> None:
    """A document with damage in it is not half a document."""
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"a\n\nb\nc\n\nd\ne\n")[:-4])
    assert read(path, txt_documents="blank-line")[0] == ["a", "b\nc"]
    (reject,) = read(path, txt_documents="blank-line")[1]
    assert reject.line == 6 and "cut off" in reject.reason
    texts, (reject,) = read(path)
    assert texts == [] and reject.line == 1


def test_plain_text_has_one_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(UserError, match="plain text has one text for each document, --json-keys names 2"):
        preprocess(options(tmp_path / "a.txt", json_keys=("a", "b")))


def test_what_is_too_long_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (json_lines, plain_text):
        monkeypatch.setattr(module, "MAX_DOCUMENT_BYTES", 1_000_000)
    long = b'{"text": "' + b"x" * 1_000_000 + b'"}\n'
    longest = b'{"text": "' + b"x" * (1_000_000 - 13) + b'"}\n'
    content = A + long + B + long + longest + A + long[:-1]
    texts = ["a", "b", "x" * (1_000_000 - 13), "a"]
    check(tmp_path / "a.jsonl", content, texts, [(2, "a line of more than"), (4, "a line"), (7, "a line")])
    check(tmp_path / "a.txt", A * 100_000, [], [(1, "--txt-documents blank-line divides it")])
    content = b"a\n\n" + A * 100_000 + b"\nb\n\n" + b"y" * 1_100_000 + b"\nz\n\nc\n"
    rejects = [(3, "a document of more than"), (100_006, "more than")]
    check(tmp_path / "a.txt", content, ["a", "b", "c"], rejects, txt_documents="blank-line")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="/proc tells how much memory was used")
def test_a_line_of_100_megabytes_is_a_document_and_a_longer_one_eats_no_memory(tmp_path: Path) -> None:
    with open(tmp_path / "a.jsonl", "wb") as file:
        file.write(A + b'{"text": "' + b"x" * 100_000_000 + b'"}\n')
        file.seek(1 << 29, 1)  # a hole reads as zeros
        file.write(b"\n" + B)
    program = (
        "import re, sys\n"
        "from contextlm.data.sources.batches import read_batches\n"
        "from contextlm.data.sources.units import find_units\n"
        "for batch in read_batches(find_units([sys.argv[1]]), ['text']):\n"
        "    for item in batch.documents():\n"
        "        print(item.reason if hasattr(item, 'reason') else len(item.texts[0][0]))\n"
        # Not ru_maxrss: that of a new program begins with its parent's.
        "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "a.jsonl")]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[4])
    *items, kilobytes = shown.stdout.splitlines()
    assert items == ["1", "100000000", "a line of more than 128 MiB", "1"]
    assert int(kilobytes) < 700_000


def parquet_file(path: Path, texts: list[object], **types: object) -> bytes:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"text": pyarrow.array(texts, **types)}), path, row_group_size=2)
    return path.read_bytes()


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    content = parquet_file(path, ["a", None, "c", "d"])
    check(path, content, ["a", "c", "d"], [(2, "'text' is null, not text")])
    check(path, content[:-20], [], [(1, "not a readable parquet file")])
    check(path, b"", [], [(1, "not a readable parquet file")])
    check(path, A, [], [(1, "not a readable parquet file")])
    check(path, parquet_file(path, [1, 2, 3]), [], [(row, "'text' is a number, not text") for row in (1, 2, 3)])
    damaged = bytearray(parquet_file(path, [f"{n} {NOISE[n : n + 500]}" for n in range(6)]))
    group = pytest.importorskip("pyarrow.parquet").read_metadata(path).row_group(1).column(0)
    damaged[group.dictionary_page_offset : group.data_page_offset] = bytes(
        group.data_page_offset - group.dictionary_page_offset
    )
    path.write_bytes(damaged)
    texts, rejects = read(path)
    assert [text[0] for text in texts] == ["0", "1", "4", "5"]
    assert [reject.line for reject in rejects] == [3] and "row group 1" in rejects[0].reason


def test_parquet_columns(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"body": ["a"], "n": [1]}), path)
    check(path, path.read_bytes(), [], [(1, "no column 'text'; columns: 'body', 'n'")])
    parquet.write_table(pyarrow.Table.from_arrays([pyarrow.array(["a"])] * 2, names=["text"] * 2), path)
    check(path, path.read_bytes(), [], [(1, "more than one column 'text'")])
    not_utf8 = pyarrow.array([b"a", b"\xff", b"c"]).view(pyarrow.string())
    parquet.write_table(pyarrow.table({"text": not_utf8}), path)
    check(path, path.read_bytes(), ["a", "c"], [(2, "'text' is bytes that may not be UTF-8, not text")])


def options(*inputs: Path, **changes: object) -> PreprocessingOptions:
    given = {
        "inputs": tuple(map(str, inputs)),
        "output_prefix": str(inputs[0].parent / "out" / "x"),
        "data": DataConfig(tokenizer_type="ByteTokenizer"),
    }
    return PreprocessingOptions(**{**given, **changes})


@pytest.mark.parametrize("case", [name for name, (*_, rejects) in LINE_CASES.items() if rejects])
def test_bad_input_is_raised_or_skipped_and_listed(tmp_path: Path, case: str) -> None:
    name, content, texts, rejects = LINE_CASES[case]
    good = tmp_path / "good.jsonl"
    good.write_bytes(B)
    bad = tmp_path / name
    bad.write_bytes(content)
    with pytest.raises(UserError) as raised:
        preprocess(options(good, bad))
    line, part = rejects[0]
    assert str(raised.value).startswith(f"{bad}:{line}: ") and part in str(raised.value)
    assert "--on-error skip" in str(raised.value)
    assert not list((tmp_path / "out").iterdir())
    progress = preprocess(options(good, bad, on_error="skip"))
    assert (progress.documents, progress.rejected) == (1 + len(texts), len(rejects))
    listed = [json.loads(row) for row in (tmp_path / "out" / "x_rejects.jsonl").read_text().splitlines()]
    assert [(row["file"], row["line"]) for row in listed] == [(str(bad), line) for line, _ in rejects]
    assert all(part in row["reason"] for (_, part), row in zip(rejects, listed, strict=True))


def test_damaged_files_are_raised_or_skipped_and_listed(tmp_path: Path) -> None:
    packed, table = tmp_path / "a.jsonl.gz", tmp_path / "b.parquet"
    packed.write_bytes(gzip.compress(A + B + A)[:-8])
    table.write_bytes(parquet_file(table, ["c", "d"])[:-8])
    for path, sentence in (
        (packed, "a.jsonl.gz:4: the gzip data ends"),
        (table, "b.parquet:1: not a readable parquet"),
    ):
        with pytest.raises(UserError, match=sentence):
            preprocess(options(path))
    progress = preprocess(options(packed, table, on_error="skip"))
    assert (progress.documents, progress.rejected) == (3, 2)
    assert progress.read_bytes == progress.total_bytes == packed.stat().st_size + table.stat().st_size
    with pytest.raises(UserError, match="there is no usable document"):
        preprocess(options(table, on_error="skip"))
