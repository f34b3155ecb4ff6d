"""Many texts at once give the ids of one at a time, whichever library works, and a library that errs is dropped."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from contextlm.config.schema import DataConfig
from contextlm.data import batch_encoding
from contextlm.data.batch_encoding import ODD_TEXTS, BatchEncoder, EncodeArray, QuickLibrary
from contextlm.data.huggingface_tokenizer import HuggingFaceTokenizer
from contextlm.data.tokenizer_interface import Tokenizer
from contextlm.data.tokenizers import build_tokenizer
from contextlm.errors import UserError

KINDS = ("ByteTokenizer", "SentencePieceTokenizer", "HuggingFaceTokenizer", "GPT2BPETokenizer", "TikTokenizer")
FORGERIES = ("<|endoftext|>", "a <|endoftext|>b", "</s>", "<unk></s><s>", "<SPECIAL_8>", "<|endoftext|><|endoftext|>")


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest, tokenizer_settings: dict[str, DataConfig]) -> Tokenizer:
    if request.param == "TikTokenizer":
        pytest.importorskip("tiktoken")
    return build_tokenizer(tokenizer_settings[request.param])


def check(tokenizer: Tokenizer, texts: list[str]) -> None:
    ids, lengths = tokenizer.encode_batch(texts)
    one_by_one = [tokenizer.encode(text) for text in texts]
    assert ids.tolist() == [token for text in one_by_one for token in text]
    assert lengths.tolist() == [len(text) for text in one_by_one] and lengths.dtype == np.int64
    assert ids.dtype.kind == "u" and tokenizer.eod not in ids


def test_odd_texts_and_forgeries(tokenizer: Tokenizer) -> None:
    check(tokenizer, [])
    check(tokenizer, [""])
    check(tokenizer, [*ODD_TEXTS, *FORGERIES, "x" * 10_000, " " * 10_000])


def test_any_texts(tokenizer: Tokenizer) -> None:
    hypothesis = pytest.importorskip("hypothesis")
    from hypothesis import strategies as st

    pieces = st.one_of(
        st.sampled_from([*FORGERIES, "<", "|>", "the", " quick", "\n\n", "    ", "'ll", "é", "e\u0301", "\u2028"]),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
        st.text(st.sampled_from(" \n\t\r\u00a0\u3000"), max_size=8),
    )

    @hypothesis.settings(max_examples=60, deadline=None)
    @hypothesis.given(st.lists(st.lists(pieces, max_size=8).map("".join), max_size=6))
    def prove(texts: list[str]) -> None:
        check(tokenizer, texts)

    prove()


def test_gigatoken_is_what_works_here(byte_level_json: Path) -> None:
    """The tests above are about it where it is installed."""
    pytest.importorskip("gigatoken")
    tokenizer = build_tokenizer(DataConfig(tokenizer_type="HuggingFaceTokenizer", tokenizer_model=str(byte_level_json)))
    tokenizer.encode_batch(["the fox"])
    assert (tokenizer.batch_encoder.library, tokenizer.batch_encoder.notices) == ("gigatoken", [])
    assert isinstance(tokenizer, HuggingFaceTokenizer)
    loaded = tokenizer._gigatoken()
    assert tokenizer.eod in loaded("fox<|endoftext|>")  # The library alone is fooled.


def test_a_text_that_is_refused_is_refused_in_a_batch(tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="surrogates"):
        tokenizer.encode_batch(["fine", "a\ud800b"])


def own(text: str) -> list[int]:
    """A tokenizer of a test: code points, and 7 for what the text `END` would forge."""
    if "refuse" in text:
        raise UserError("refused")
    return [ord(character) for character in text]


def right(text: str) -> np.ndarray:
    return np.array([ord(character) for character in text], dtype=np.uint32)


def _same(found: EncodeArray) -> EncodeArray:
    return found


def encoder(*libraries: EncodeArray) -> BatchEncoder:
    named = [QuickLibrary(f"library{n}", partial(_same, found)) for n, found in enumerate(libraries)]
    return BatchEncoder(own, named, ["END"], {7: "END"})


def test_a_library_that_agrees_is_used() -> None:
    seen = []
    batches = encoder(lambda text: (seen.append(text), right(text))[1])
    ids, lengths = batches.encode(["ab", "c"])
    assert (ids.tolist(), lengths.tolist(), batches.library, batches.notices) == ([97, 98, 99], [2, 1], "library0", [])
    assert seen[-2:] == ["ab", "c"]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda text: right(text)[:-1],
        lambda text: right(text) + np.uint32("😀" in text),  # in odd texts only
        lambda text: right(text) + np.uint32("of this corpus" in text),  # in the first documents only
        lambda text: 1 // 0,
    ],
    ids=["always", "odd", "documents", "raises"],
)
def test_a_library_that_lies_is_dropped_with_one_line(wrong: EncodeArray) -> None:
    texts = ["a document of this corpus", "another"]
    batches = encoder(wrong)
    ids, lengths = batches.encode(texts)
    assert ids.tolist() == [ord(character) for text in texts for character in text]
    assert batches.library is None and len(batches.notices) == 1
    assert batches.notices[0].startswith("library0 gives other ids for the text ")
    second = encoder(wrong, right)
    second.encode(texts)
    assert second.library == "library1" and len(second.notices) == 1


def test_the_check_is_what_finds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BatchEncoder, "_agrees", lambda *_: True)
    ids, _ = encoder(lambda text: right(text) + np.uint32(1)).encode(["a"])
    assert ids.tolist() == [98]


def test_what_holds_special_text_never_reaches_a_library() -> None:
    seen = []
    batches = encoder(lambda text: (seen.append(text), right(text))[1])
    batches.encode(["an END here", "none"])
    assert "none" in seen and not [text for text in seen if "END" in text]


def test_a_control_token_that_comes_out_all_the_same_is_no_boundary() -> None:
    """A library that makes an end of other text than the sample has."""
    batches = encoder(lambda text: np.array([7, 7], np.uint32) if text == "</p>" else right(text))
    batches.encode(["first"])
    ids, lengths = batches.encode(["x", "</p>", "y"])
    assert ids.tolist() == [ord(character) for character in "x</p>y"] and lengths.tolist() == [1, 4, 1]


def test_a_library_that_stumbles_later_leaves_that_text_to_the_tokenizer() -> None:
    def stumbles(text: str) -> np.ndarray:
        if "stumble" in text or "refuse" in text:
            raise RuntimeError
        return right(text)

    batches = encoder(stumbles)
    batches.encode(["first"])
    assert batches.encode(["stumble"])[0].tolist() == [ord(character) for character in "stumble"]
    with pytest.raises(UserError, match="refused"):
        batches.encode(["first", "refuse"])


def test_absent_and_unfit_libraries_are_named() -> None:
    def absent() -> EncodeArray:
        raise ImportError

    def unfit() -> EncodeArray:
        raise RuntimeError("no such model\nat line 3")

    batches = BatchEncoder(own, [QuickLibrary("one", absent), QuickLibrary("two", unfit)], [], {})
    assert batches.encode(["a"])[0].tolist() == [97]
    assert batches.notices == [
        "one is not installed; with it this is much faster: pip install one",
        "two does not read this vocabulary: the same tokens, more slowly (no such model)",
    ]


def test_a_library_that_remembers_every_word_is_made_to_forget(
    byte_level_json: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gigatoken")
    monkeypatch.setattr(batch_encoding, "CHARACTERS_BETWEEN_LOOKS", 1)
    monkeypatch.setattr(batch_encoding, "GROWTH_BYTES", -1)
    tokenizer = build_tokenizer(DataConfig(tokenizer_type="HuggingFaceTokenizer", tokenizer_model=str(byte_level_json)))
    loads = []
    assert isinstance(tokenizer, HuggingFaceTokenizer)
    load = tokenizer._gigatoken
    monkeypatch.setattr(tokenizer, "_gigatoken", lambda: (loads.append(1), load())[1])
    for text in ("first", "second", "third fox"):
        assert tokenizer.encode_batch([text])[0].tolist() == tokenizer.encode(text)
    assert len(loads) == 3
