"""From the configuration to samples: splits, blends, and what is refused before training."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from contextlm.config.schema import Config, DataConfig, ModelConfig, TrainingConfig
from contextlm.data import dataset_checks, index_cache
from contextlm.data.blended_samples import BlendedSamples
from contextlm.data.byte_tokenizer import ByteTokenizer
from contextlm.data.datasets import Datasets, build_datasets, split_documents
from contextlm.data.indexed import IndexedDataset
from contextlm.data.indexed_writer import IndexedWriter
from contextlm.data.sidecar import Sidecar, read_sidecar, sampled_sha256
from contextlm.errors import UserError


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Writes documents of one repeated byte each, so that a token tells its document; the prefix."""

    def write(name: str, documents: int = 100, length: int = 20) -> str:
        with IndexedWriter(tmp_path / name, 257) as writer:
            for document in range(documents):
                writer.add_document([document] * length)
        return str(tmp_path / name)

    return write


def build(*data_path: str, split: str = "80,15,5", seq_length: int = 8) -> Datasets:
    data = DataConfig(data_path=data_path, split=split, tokenizer_type="ByteTokenizer")
    return build_datasets(Config(data=data, model=ModelConfig(seq_length=seq_length)), ByteTokenizer())


def documents_of(samples) -> set[int]:
    return set(np.concatenate([samples.sample(n) for n in range(samples.samples_per_epoch)]).tolist())


def test_splits_are_ranges_of_documents(write) -> None:
    datasets = build(write("a"))
    assert documents_of(datasets.train) == set(range(80))
    assert documents_of(datasets.validation) == set(range(80, 95))
    assert documents_of(datasets.test) == set(range(95, 100))
    assert datasets.notes == ()


def test_bounds_are_rounded_as_in_megatron() -> None:
    split = (0.969, 0.030, 0.001)
    assert [split_documents(1003, split, place) for place in range(3)] == [
        slice(0, 972), slice(972, 1002), slice(1002, 1003),
    ]  # fmt: skip
    for documents in range(200):
        parts = [split_documents(documents, split, place) for place in range(3)]
        assert parts[0].start == 0 and parts[2].stop == documents
        assert parts[0].stop == parts[1].start and parts[1].stop == parts[2].start


def test_a_split_of_zero_is_absent_without_a_word(write) -> None:
    datasets = build(write("a"), split="1,0,0")
    assert datasets.validation is None and datasets.test is None and datasets.notes == ()
    assert build(write("a"), split="0,1,0").train is None


def test_small_evaluation_split_is_noted_small_training_split_is_an_error(write) -> None:
    prefix = write("a", documents=30, length=5)
    datasets = build(prefix, split="90,10,0.1", seq_length=10)
    assert datasets.test is None and datasets.validation is not None
    assert len(datasets.notes) == 1 and "test split" in datasets.notes[0]
    with pytest.raises(UserError, match="training split .* has 135 tokens in 27 documents, one sample needs 151"):
        build(prefix, split="90,10,0.1", seq_length=150)


def test_blend_draws_by_weight_and_by_size(write) -> None:
    a, b = write("a", documents=100), write("b", documents=50)
    weighted = build("0.9", a, "0.1", b).train
    assert isinstance(weighted, BlendedSamples)
    assert weighted.counts(1000) == [pytest.approx(900, abs=2), pytest.approx(100, abs=2)]
    by_size = build(a, b).train
    assert by_size.counts(300) == [pytest.approx(200, abs=3), pytest.approx(100, abs=3)]


def test_every_bad_dataset_is_reported(write, tmp_path: Path) -> None:
    good = write("good")
    short = write("short")
    Path(f"{short}.bin").write_bytes(b"")
    with pytest.raises(UserError) as error:
        build("1", good, "1", short, "1", str(tmp_path / "none"))
    assert len(error.value.problems) == 2
    assert "truncated" in error.value.problems[0] and "no such dataset" in error.value.problems[1]


def test_ids_outside_the_vocabulary_are_found_without_a_sidecar(tmp_path: Path, monkeypatch) -> None:
    with IndexedWriter(tmp_path / "a", 1000) as writer:
        for last in (5, 600, 5):
            writer.add_document([1] * 50 + [last])
    with pytest.raises(UserError, match="token id 600 is outside the vocabulary of 257"):
        build(str(tmp_path / "a"), split="1,0,0")
    # Above the limit pieces are read: here the two ends, or five of two tokens, from tokens 0, 37, 75, 113 and 151.
    monkeypatch.setattr(dataset_checks, "SCAN_LIMIT_BYTES", 40)
    monkeypatch.setattr(dataset_checks, "SCAN_PIECES", 2)
    samples = build(str(tmp_path / "a"), split="1,0,0").train
    with pytest.raises(UserError, match="sample [0-9]+ holds token id 600, outside the vocabulary of 257"):
        documents_of(samples)
    monkeypatch.setattr(dataset_checks, "SCAN_LIMIT_BYTES", 20)
    monkeypatch.setattr(dataset_checks, "SCAN_PIECES", 5)
    assert build(str(tmp_path / "a"), split="1,0,0").train is not None
    monkeypatch.setattr(dataset_checks, "SCAN_PIECES", 4)  # from tokens 0, 50, 100 and 151
    with pytest.raises(UserError, match="token id 600 is outside"):
        build(str(tmp_path / "a"), split="1,0,0")
    monkeypatch.setattr(dataset_checks, "SCAN_CHUNK_TOKENS", 7)
    monkeypatch.setattr(dataset_checks, "SCAN_LIMIT_BYTES", 1 << 20)
    with pytest.raises(UserError, match="token id 600"):
        build(str(tmp_path / "a"), split="1,0,0")


def test_another_corpus_of_the_same_size_is_noticed(write) -> None:
    prefix = write("a")
    sidecar = dataclasses.replace(sidecar_of(prefix), bin_sampled_sha256=sampled_sha256(f"{prefix}.bin"))
    sidecar.write(prefix)
    assert build(prefix).train is not None
    content = Path(f"{prefix}.bin").read_bytes()
    Path(f"{prefix}.bin").write_bytes(content[:1] + content[:-1])
    with pytest.raises(UserError, match="describes other .bin/.idx files"):
        build(prefix)
    dataclasses.replace(sidecar, bin_sampled_sha256=None).write(prefix)  # one that was written before there was a hash
    assert build(prefix).train is not None


def test_sidecar_is_compared_with_the_run_and_the_files(write) -> None:
    prefix = write("a")
    sidecar = sidecar_of(prefix)
    sidecar.write(prefix)
    assert read_sidecar(prefix) == sidecar
    assert build(prefix).train is not None
    other = dataclasses.replace(sidecar, tokenizer_type="SentencePieceTokenizer", tokenizer_fingerprint="f" * 64)
    other.write(prefix)
    with pytest.raises(UserError, match="made with a SentencePieceTokenizer .*ffff.* the run has a ByteTokenizer"):
        build(prefix)
    dataclasses.replace(sidecar, max_token_id=257).write(prefix)
    with pytest.raises(UserError, match="token id 257 is outside"):
        build(prefix)
    dataclasses.replace(sidecar, idx_sha256="0" * 64).write(prefix)
    with pytest.raises(UserError, match="describes other .bin/.idx files"):
        build(prefix)
    Path(f"{prefix}.json").write_text('{"tokens": 1}')
    with pytest.raises(UserError, match="does not describe the dataset"):
        build(prefix)


def test_a_sidecar_is_not_trusted_further_than_the_first_sample(write) -> None:
    """Sizes and index are as it says, the tokens are others: found where it is read, and named."""
    prefix = write("a")
    sidecar_of(prefix).write(prefix)
    content = bytearray(Path(f"{prefix}.bin").read_bytes())
    content[1000:1002] = (60_000).to_bytes(2, "little")
    Path(f"{prefix}.bin").write_bytes(content)
    samples = build(prefix, split="1,0,0").train
    with pytest.raises(UserError, match="a: sample [0-9]+ holds token id 60000, outside the vocabulary of 257"):
        documents_of(samples)
    # A file that is longer or shorter is no longer the sidecar's.
    Path(f"{prefix}.bin").write_bytes(content + b"..")
    with pytest.raises(UserError, match="longer than its index says"):
        build(prefix)


def test_fingerprint_is_of_the_data_not_of_its_place(write, tmp_path: Path) -> None:
    a = write("a")
    for suffix in (".bin", ".idx"):
        shutil.copy(a + suffix, tmp_path / f"copy{suffix}")
    first = build(a).fingerprint
    assert build(str(tmp_path / "copy")).fingerprint == first
    assert build(a, split="1,0,0").fingerprint != first
    content = bytearray(Path(f"{a}.bin").read_bytes())
    content[0] ^= 1
    Path(f"{a}.bin").write_bytes(content)
    assert build(a).fingerprint != first


def build_own(several: bool = False, **paths: tuple[str, ...]) -> Datasets:
    data = DataConfig(**paths, tokenizer_type="ByteTokenizer")
    training = TrainingConfig(multiple_validation_sets=several)
    return build_datasets(Config(data=data, model=ModelConfig(seq_length=8), training=training), ByteTokenizer())


def test_each_split_may_have_datasets_of_its_own(write) -> None:
    a, b, c = write("a", documents=30), write("b", documents=20), write("c", documents=10)
    own = build_own(train_data_path=(a,), valid_data_path=("0.5", b, "0.5", c), test_data_path=(c,))
    assert documents_of(own.train) == set(range(30)) and documents_of(own.test) == set(range(10))
    assert isinstance(own.validation, BlendedSamples) and own.validation_sets == {}
    assert build_own(valid_data_path=(b,)).train is None  # enough to evaluate
    small = write("small", documents=1, length=5)
    with pytest.raises(UserError, match="small: its test split .--test-data-path. has 5 tokens"):
        build_own(train_data_path=(a,), test_data_path=(small,))
    with pytest.raises(UserError, match="small: its training split .--train-data-path. has 5 tokens"):
        build_own(train_data_path=(small,))
    with pytest.raises(UserError, match="^--valid-data-path .*none: no such dataset"):
        build_own(train_data_path=(a,), valid_data_path=(a + "none",))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"split": "99,1,0"}, None),  # skipped with a note
        ({"split": "99,1,0", "full_validation": True}, "its validation split .* has 20 tokens in 1 documents"),
        ({"split": "1,99,0", "skip_train": True}, None),
        ({"valid_data_path": "small"}, "small: its validation split .--valid-data-path. has 5 tokens in 1 documents"),
        ({"valid_data_path": "small", "eval_iters": 0}, None),
        ({"test_data_path": "small"}, "small: its test split .--test-data-path. has 5 tokens .* one sample needs 31"),
    ],
)
def test_an_evaluation_that_was_asked_for_needs_a_sample(write, values: dict, message: str | None) -> None:
    a, paths = write("a"), {name: (write(values[name], 1, 5),) for name in values if name.endswith("_data_path")}
    own = {"train_data_path": (a,), **paths} if paths else {"data_path": (a,), "split": values["split"]}
    training = {
        name: value for name, value in values.items() if name in ("full_validation", "skip_train", "eval_iters")
    }
    config = Config(data=DataConfig(**own), model=ModelConfig(seq_length=30), training=TrainingConfig(**training))
    if message is None:
        assert len(build_datasets(config, ByteTokenizer()).notes) == 1
    else:
        with pytest.raises(UserError, match=message):
            build_datasets(config, ByteTokenizer())


def test_an_evaluation_that_was_asked_for_needs_a_micro_batch_of_each_rank(write) -> None:
    a, b, c = write("a"), write("b", 4), write("c", 3)  # 10 and 7 samples of 8 tokens
    data = DataConfig(train_data_path=(a,), valid_data_path=(b, c))

    def build_for(world_size: int | None, several: bool, data: DataConfig = data) -> Datasets:
        training = TrainingConfig(multiple_validation_sets=several, micro_batch_size=2)
        config = Config(data=data, model=ModelConfig(seq_length=8), training=training)
        return build_datasets(config, ByteTokenizer(), world_size)

    build_for(3, several=True)
    build_for(8, several=False)
    build_for(None, several=True)
    with pytest.raises(UserError) as error:
        build_for(4, several=True)
    assert error.value.problems == (
        "--valid-data-path: one pass of c has 57 tokens, 8 samples of --seq-length 8 need 65, one micro-batch for each "
        "of 4 data-parallel rank(s): add documents, or use a smaller --micro-batch-size or --seq-length",
    )
    with pytest.raises(UserError, match="one pass of validation has 129 tokens, 20 samples of --seq-length 8 need 161"):
        build_for(10, several=False)
    build_for(100, several=False, data=DataConfig(data_path=(a,)))  # nobody asked: one line, later


def test_without_a_tokenizer_the_ids_are_not_looked_at(write) -> None:
    a = write("a")
    dataclasses.replace(sidecar_of(a), tokenizer_fingerprint="f" * 64).write(a)
    config = Config(data=DataConfig(data_path=(a,)), model=ModelConfig(seq_length=8))
    assert build_datasets(config, None).fingerprint
    with pytest.raises(UserError, match="fingerprint"):
        build_datasets(config, ByteTokenizer())


def test_the_cache_lies_beside_the_data_or_where_it_is_wanted(write, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(index_cache, "MEMORY_BYTES", 0)
    a = write("a")

    def prepare(samples: range, **values: str) -> list[str]:
        config = Config(data=DataConfig(data_path=(a,), split="80,10,10", **values), model=ModelConfig(seq_length=8))
        folder = Path(values.get("data_cache_path", tmp_path / "index_cache"))
        build_datasets(config, ByteTokenizer()).prepare(samples)
        return sorted(path.name.split("-")[0] for path in folder.iterdir())

    # 199 samples an epoch: the training's epochs, one of validation, one of test.
    assert prepare(range(398)) == ["bounds", *["documents"] * 4, *["offsets"] * 4, *["places"] * 4]
    assert prepare(range(0), data_cache_path=str(tmp_path / "x" / "y")).count("places") == 2
    # A run that continues wants the epoch where it is.
    assert prepare(range(1000, 1001), data_cache_path=str(tmp_path / "x" / "y")).count("places") == 3


def test_several_validation_sets_have_names_that_tell_them_apart(write, tmp_path: Path) -> None:
    a, b = write("a", documents=30), write("b", documents=20)
    sets = build_own(several=True, valid_data_path=(a, b)).validation_sets
    assert {name: documents_of(samples) for name, samples in sets.items()} == {"a": set(range(30)), "b": set(range(20))}
    (tmp_path / "other").mkdir()
    for suffix in (".bin", ".idx"):
        shutil.copy(a + suffix, tmp_path / "other" / f"a{suffix}")
    twins = (a, str(tmp_path / "other" / "a"))
    assert tuple(build_own(several=True, valid_data_path=twins).validation_sets) == twins


def test_evaluation_data_have_a_fingerprint_of_their_own(write) -> None:
    a, b, c = write("a", documents=30), write("b", documents=20), write("c", documents=10)
    first = build_own(train_data_path=(a,), valid_data_path=(b,))
    second = build_own(train_data_path=(a,), valid_data_path=(c,))
    third = build_own(train_data_path=(b,), valid_data_path=(c,))
    assert first.fingerprint == second.fingerprint != third.fingerprint
    assert first.evaluation_fingerprint != second.evaluation_fingerprint == third.evaluation_fingerprint
    assert build(a).evaluation_fingerprint is None


def sidecar_of(prefix: str) -> Sidecar:
    dataset = IndexedDataset(prefix)
    return Sidecar(
        tokenizer_type="ByteTokenizer",
        tokenizer_fingerprint=ByteTokenizer().fingerprint,
        vocab_size=257,
        eod=256,
        documents=100,
        tokens=dataset.num_tokens,
        text_bytes=dataset.num_tokens,
        max_token_id=99,
        bin_bytes=dataset.bin_bytes,
        idx_sha256=dataset.index_sha256,
    )
