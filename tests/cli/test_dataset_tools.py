"""The tools over finished datasets, and the flags of pieces, as a user runs them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from contextlm.data.huggingface_tokenizer import HuggingFaceTokenizer
from contextlm.data.indexed import IndexedDataset
from tools import dataset_stats, merge_datasets, preprocess_data, train_tokenizer, validate_dataset

TOKENIZER = ("--tokenizer-type", "ByteTokenizer")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": f"document {i}, café " * (i % 5)}) + "\n" for i in range(40)))
    return path


def status(program, *arguments: object) -> int:
    """Exit status of a tool in this process."""
    try:
        return program.main([str(argument) for argument in arguments])
    except SystemExit as end:
        assert isinstance(end.code, int)
        return end.code


def preprocess(corpus: Path, name: str, *more: object) -> Path:
    prefix = corpus.parent / "out" / name
    flags = ("--input", corpus, "--output-prefix", prefix, "--append-eod", *TOKENIZER)
    assert status(preprocess_data, *flags, *more) == 0
    return prefix


def test_the_way_of_a_job_array(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Shards, the command that they name, and a look at the result."""
    for shard in range(3):
        prefix = preprocess(corpus, "c", "--num-shards", 3, "--shard", shard)
    out = capsys.readouterr().out
    command = (
        f"tools/merge_datasets.py --input '{prefix}-*-of-00003_text_document' --output-prefix {prefix}_text_document"
    )
    assert out.count(command) == 3
    merged = f"{prefix}_text_document"
    assert status(merge_datasets, "--input", f"{prefix}-*-of-00003_text_document", "--output-prefix", merged) == 0
    one = preprocess(corpus, "one")
    for suffix in (".bin", ".idx", ".json"):
        assert Path(merged + suffix).read_bytes() == Path(f"{one}_text_document{suffix}").read_bytes()
    capsys.readouterr()
    assert status(validate_dataset, "--input", merged, "--samples", 2, *TOKENIZER) == 0
    out = capsys.readouterr().out
    assert f"{merged}: 40 documents, " in out and "sound" in out and "'document 1, café '" in out


def test_shards_that_are_missing(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prefix = preprocess(corpus, "c", "--num-shards", 3, "--shard", 1)
    capsys.readouterr()
    assert status(merge_datasets, "--input", f"{prefix}-*", "--output-prefix", f"{prefix}_all") == 1
    assert "error: shard 0, 2 of 3 is missing from the run of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--num-shards", "2"), "--num-shards, --shard: give both, or neither"),
        (("--shard", "0"), "--num-shards, --shard: give both, or neither"),
        (("--num-shards", "2", "--shard", "2"), "--shard 2: with --num-shards 2 the shards are 0 to 1"),
        (("--num-shards", "2", "--shard", "0", "--partitions", "2"), "--partitions: a shard is one piece already"),
        (("--partitions", "0"), "--partitions 0: at least 1"),
        (("--executor", "ray"), "--executor ray: give --partitions N too"),
    ],
)
def test_flags_of_pieces(corpus: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str], message: str) -> None:
    prefix = corpus.parent / "x"
    assert status(preprocess_data, "--input", corpus, "--output-prefix", prefix, *TOKENIZER, *flags) == 1
    assert f"error: {message}" in capsys.readouterr().err and not list(corpus.parent.glob("x*"))


def test_a_place_where_nothing_can_be_written(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prefix = preprocess(corpus, "c")
    nowhere = corpus / "x"  # below a file
    commands = (
        (preprocess_data, "--input", corpus, *TOKENIZER),
        (preprocess_data, "--input", corpus, *TOKENIZER, "--partitions", 2),
        (merge_datasets, "--input", f"{prefix}_text_document"),
    )
    for program, *words in commands:
        assert status(program, *words, "--output-prefix", nowhere) == 1
        assert re.search(r"cannot be written \((File exists|Not a directory): .*corpus.jsonl", capsys.readouterr().err)


def test_validation_tells_all_problems_and_fails(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prefixes = [f"{preprocess(corpus, name)}_text_document" for name in ("a", "b", "c")]
    for prefix in prefixes[:2]:
        Path(f"{prefix}.bin").write_bytes(Path(f"{prefix}.bin").read_bytes()[:-3])
    capsys.readouterr()
    assert status(validate_dataset, "--input", corpus.parent / "out") == 1
    shown = capsys.readouterr()
    assert shown.err.count(".bin is truncated") == 2 and f"{prefixes[2]}: 40 documents" in shown.out


def test_statistics(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prefix = preprocess(corpus, "c")
    capsys.readouterr()
    picture = corpus.parent / "pictures" / "lengths.svg"
    assert status(dataset_stats, "--input", f"{prefix}_text_document", "--plot", picture) == 0
    out = capsys.readouterr().out
    dataset = IndexedDataset(f"{prefix}_text_document")
    assert f"{dataset.num_tokens:,} tokens, 40 documents, 8 of them empty" in out and "tokens per byte" in out
    assert picture.read_text().startswith("<svg")
    assert status(dataset_stats, "--input", f"{prefix}_text_document", "--plot", "x.png") == 1
    assert "only .svg pictures" in capsys.readouterr().err


def test_a_byte_level_vocabulary(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--input", corpus, "--type", "byte-level-bpe", "--output-prefix")
    for name in ("one", "two"):
        assert status(train_tokenizer, *flags, corpus.parent / name, "--vocab-size", 270) == 0
    assert (corpus.parent / "one.json").read_bytes() == (corpus.parent / "two.json").read_bytes()
    assert (
        f"--tokenizer-type HuggingFaceTokenizer --tokenizer-model {corpus.parent / 'two.json'}"
        in capsys.readouterr().out
    )
    tokenizer = HuggingFaceTokenizer(corpus.parent / "one.json")
    assert (tokenizer.vocab_size, tokenizer.eod, tokenizer.eod_token) == (270, 0, "<|endoftext|>")
    for text in ("document 7, café", "  \n\té ☃ \x00", "not <|endoftext|> here"):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text and tokenizer.eod not in ids
    assert len(tokenizer.encode("document")) < 4  # it has learned
    for more, message in (
        (("--vocab-size", 5000), "no pair occurs twice any more after"),
        (("--vocab-size", 20), "--vocab-size 20: at least 258"),
        (("--vocab-size", 270, "--model-type", "bpe"), "--model-type bpe: only for --type sentencepiece"),
        (("--vocab-size", 270, "--json-key", "x"), "corpus.jsonl:1: no key 'x'"),
    ):
        assert status(train_tokenizer, *flags, corpus.parent / "bad", *more) == 1
        assert message in capsys.readouterr().err and not (corpus.parent / "bad.json").exists()
