"""tools/preprocess_data.py and tools/train_tokenizer.py as a user runs them."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from contextlm.data.byte_tokenizer import ByteTokenizer
from contextlm.data.indexed import IndexedDataset
from contextlm.data.indexed_writer import IndexedWriter
from contextlm.data.preprocessing import PreprocessingOptions, Progress, preprocess
from contextlm.data.sidecar import read_sidecar

REPOSITORY = Path(__file__).parents[2]
EOD = ByteTokenizer().eod


def run(tool: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, str(REPOSITORY / "tools" / tool), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


@pytest.fixture
def preprocess_main(capsys: pytest.CaptureFixture[str]):
    """The program's `main` in this process: exit status, stdout, stderr."""
    spec = importlib.util.spec_from_file_location("preprocess_data", REPOSITORY / "tools" / "preprocess_data.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def main(*arguments: str | Path) -> tuple[int, str, str]:
        status = module.main(["--tokenizer-type", "ByteTokenizer", *map(str, arguments)])
        return status, *capsys.readouterr()

    return main


def write_lines(path: Path, *records: object) -> Path:
    """One JSON value per line; strings are written as they are."""
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    path.write_text("\n".join(lines), encoding="utf-8")  # no newline after the last line
    return path


def test_the_whole_way(tmp_path: Path) -> None:
    """A tokenizer trained on the text, the text tokenized with it by two processes, and read back."""
    texts = [f"document {i}\n\n  of the corpus, café number {i * i}\n" for i in range(400)]
    corpus = write_lines(tmp_path / "corpus.jsonl", *[{"text": text} for text in texts])
    flags: tuple[object, ...] = ("--input", corpus, "--output-prefix")
    trained = run("train_tokenizer.py", *flags, tmp_path / "tok", "--vocab-size", 330, "--model-type", "bpe")
    assert trained.returncode == 0, trained.stderr
    again = run("train_tokenizer.py", *flags, tmp_path / "tok2", "--vocab-size", 330, "--model-type", "bpe")
    assert again.returncode == 0
    assert (tmp_path / "tok.model").read_bytes() == (tmp_path / "tok2.model").read_bytes()
    flags = (
        *(*flags, tmp_path / "out" / "corpus", "--append-eod", "--workers", 2),
        *("--tokenizer-type", "SentencePieceTokenizer", "--tokenizer-model", tmp_path / "tok.model"),
    )
    result = run("preprocess_data.py", *flags)
    assert result.returncode == 0, result.stderr
    prefix = tmp_path / "out" / "corpus_text_document"
    assert f"--data-path {prefix} --tokenizer-type SentencePieceTokenizer" in result.stdout
    assert "400 documents" in result.stdout
    sidecar = read_sidecar(str(prefix))
    assert (sidecar.documents, sidecar.eod) == (400, 1)
    assert sidecar.text_bytes == sum(len(text.encode()) for text in texts)
    from contextlm.data.sentencepiece_tokenizer import SentencePieceTokenizer

    tokenizer = SentencePieceTokenizer(tmp_path / "tok.model")
    assert sidecar.tokenizer_fingerprint == tokenizer.fingerprint
    dataset = IndexedDataset(prefix)
    documents = [dataset.get(i).tolist() for i in range(400)]
    assert all(document[-1] == 1 for document in documents)
    assert [tokenizer.decode(document[:-1]) for document in documents] == texts


def test_files_are_those_of_megatrons_rules(tmp_path: Path, preprocess_main) -> None:
    """Empty texts repeat a document start and get no EOD; a list of sentences is one document of several."""
    corpus = write_lines(
        tmp_path / "odd.jsonl",
        {"text": "ab"}, {"text": ""}, {"text": ["c", "", "de"]}, {"text": []}, "", {"text": "é\n"},
    )  # fmt: skip
    status, out, err = preprocess_main("--input", corpus, "--output-prefix", tmp_path / "odd", "--append-eod")
    assert status == 0, err
    with IndexedWriter(tmp_path / "expected", 257) as writer:
        writer.add_document([97, 98, EOD])
        writer.add_document([])
        writer.add_document([99, 100, 101, EOD], lengths=[1, 3])
        writer.add_document([])
        writer.add_document([0xC3, 0xA9, 10, EOD])
    for suffix in (".bin", ".idx"):
        written = (tmp_path / f"odd_text_document{suffix}").read_bytes()
        assert written == (tmp_path / f"expected{suffix}").read_bytes()


def test_several_inputs_and_keys(tmp_path: Path, preprocess_main) -> None:
    first = write_lines(tmp_path / "1.jsonl", {"title": "A", "text": "aa"}, {"title": "B", "text": "bb"})
    second = write_lines(tmp_path / "2.jsonl", {"title": "C", "text": "cc"})
    prefix = tmp_path / "out"
    keys = ("--json-keys", "title", "text")
    status, _, err = preprocess_main("--input", first, second, "--output-prefix", prefix, *keys)
    assert status == 0, err
    for key, expected in (("title", "ABC"), ("text", "aabbcc")):
        dataset = IndexedDataset(f"{prefix}_{key}_document")
        assert bytes(dataset.tokens(0, dataset.num_tokens).astype("u1")).decode() == expected
        assert read_sidecar(f"{prefix}_{key}_document").tokens == len(expected)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"text": "cut', "not valid JSON"),
        ('{"txt": "a"}', "no key 'text'; keys of this line: 'txt'"),
        ('{"text": 5}', "'text' is a number, not text"),
        ('{"text": null}', "'text' is null, not text"),
        ('{"text": ["a", {}]}', "'text' is an object, not text"),
        ('["text"]', "a JSON object is expected, not a list"),
        ('{"text": "\\ud800"}', "lone surrogate"),
        ('{"text": ' + "[" * 100_000, "not readable JSON"),
        ('{"text": ' + "1" * 10_000 + "}", "'text' is a number, not text"),
    ],
)
def test_bad_line_stops_or_is_skipped(tmp_path: Path, preprocess_main, line: str, reason: str) -> None:
    corpus = write_lines(tmp_path / "c.jsonl", {"text": "one"}, line, {"text": "two"})
    flags = ("--input", corpus, "--output-prefix", tmp_path / "out" / "c")
    status, _, err = preprocess_main(*flags)
    assert status == 1
    assert err.startswith(f"error: {corpus}:2: ") and reason in err and "--on-error skip" in err
    assert list((tmp_path / "out").iterdir()) == []
    status, out, err = preprocess_main(*flags, "--on-error", "skip")
    assert status == 0, err
    assert "2 documents, 1 left out, 6 tokens" in out
    rejects = [json.loads(row) for row in (tmp_path / "out" / "c_rejects.jsonl").read_text().splitlines()]
    assert len(rejects) == 1 and rejects[0]["line"] == 2 and reason in rejects[0]["reason"]


def test_bytes_that_are_not_utf8(tmp_path: Path, preprocess_main) -> None:
    (tmp_path / "c.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "ok"}\n{"text": "\xff"}\n')
    status, _, err = preprocess_main("--input", tmp_path / "c.jsonl", "--output-prefix", tmp_path / "c")
    assert status == 1 and ":2: not valid UTF-8" in err


def note(seen: list[int], progress: Progress) -> None:
    seen.append(progress.documents)


def test_workers_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from contextlm.config.schema import DataConfig
    from contextlm.data import preprocessing
    from contextlm.data.sources import batches, streams

    monkeypatch.setattr(preprocessing, "BYTES_PER_WORKER", 1)  # or such a small input has one
    monkeypatch.setattr(streams, "BLOCK_BYTES", 200)
    monkeypatch.setattr(batches.read_batches, "__defaults__", (200,))
    corpus = write_lines(tmp_path / "c.jsonl", *[{"text": f"document {i} " * (i % 7)} for i in range(200)])
    for workers in (1, 2):
        options = PreprocessingOptions(
            inputs=(str(corpus),),
            output_prefix=str(tmp_path / f"w{workers}"),
            data=DataConfig(tokenizer_type="ByteTokenizer"),
            append_eod=True,
            workers=workers,
        )
        seen: list[int] = []
        progress = preprocess(options, partial(note, seen))
        assert progress.documents == 200 and progress.read_bytes == progress.total_bytes
        assert len(seen) > 20 and seen == sorted(seen)
    for suffix in ("bin", "idx", "json"):
        one, two = (tmp_path / f"w{workers}_text_document.{suffix}" for workers in (1, 2))
        assert one.read_bytes() == two.read_bytes()


def test_bad_options_are_reported_together(tmp_path: Path, preprocess_main) -> None:
    status, _, err = preprocess_main(
        *("--input", "none.jsonl", "a.csv", "--output-prefix", tmp_path / "x"),
        *("--workers", "0", "--json-keys", "a", "a"),
    )
    assert status == 1
    for part in ("--workers 0", "--json-keys a a", "none.jsonl: no such file", "a.csv: no such file"):
        assert part in err
    assert len(err.splitlines()) == 4 and all(row.startswith("error: ") for row in err.splitlines())


@pytest.mark.parametrize("flag", ["--split-sentences", "--lang=english"])
def test_options_of_megatron_that_are_refused_say_why(preprocess_main, flag: str) -> None:
    status, _, err = preprocess_main("--input", "a.jsonl", "--output-prefix", "x", flag)
    assert status == 1 and err.startswith(f"error: {flag.split('=')[0]}: not supported in ContextLM because ")


def test_no_document_is_an_error(tmp_path: Path, preprocess_main) -> None:
    (tmp_path / "empty.jsonl").write_text("\n\n")
    status, _, err = preprocess_main("--input", tmp_path / "empty.jsonl", "--output-prefix", tmp_path / "x")
    assert status == 1 and "no usable document" in err
    assert not list(tmp_path.glob("x*"))


def test_flags_are_not_abbreviated(tmp_path: Path) -> None:
    result = run("preprocess_data.py", "--inp", "a.jsonl", "--output-prefix", "x", "--tokenizer-type", "ByteTokenizer")
    assert result.returncode == 2 and "--input" in result.stderr


def test_the_tool_imports_neither_torch_nor_megatron(tmp_path: Path) -> None:
    corpus = write_lines(tmp_path / "c.jsonl", {"text": "one"})
    program = (
        "import runpy, sys\n"
        f"sys.argv = ['x', '--input', {str(corpus)!r}, '--output-prefix', {str(tmp_path / 'c')!r}, "
        "'--tokenizer-type', 'ByteTokenizer']\n"
        "try:\n"
        f"    runpy.run_path({str(REPOSITORY / 'tools' / 'preprocess_data.py')!r}, run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    assert end.code == 0, end.code\n"
        "print('heavy:', sorted({'torch', 'megatron', 'transformers'} & set(sys.modules)))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert "heavy: []" in result.stdout


def test_tokenizer_training_says_what_is_wrong(tmp_path: Path) -> None:
    corpus = write_lines(tmp_path / "c.jsonl", {"text": "one two three"}, {"txt": ""})
    flags = ("--input", corpus, "--output-prefix", tmp_path / "tok")
    result = run("train_tokenizer.py", *flags, "--vocab-size", 500)
    assert result.returncode == 1 and f"error: {corpus}:2: no key 'text'" in result.stderr
    result = run("train_tokenizer.py", *flags, "--vocab-size", 10)
    assert result.returncode == 1 and "--vocab-size 10: at least" in result.stderr
    write_lines(tmp_path / "c.jsonl", {"text": "one two three"})
    result = run("train_tokenizer.py", *flags, "--vocab-size", 5000)
    assert result.returncode == 1 and "Vocabulary size too high" in result.stderr
    assert not (tmp_path / "tok.model").exists()
