"""Texts and last words, scored by a model that knows one sentence by heart."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from contextlm.data.byte_tokenizer import ByteTokenizer
from contextlm.errors import UserError
from contextlm.inference.text_scoring import Document, read_texts, score_documents, score_last_words

SENTENCE = "the cat sat on the mat"
SURE = math.log(256 * 3)  # probability 3/4 for the byte that follows, 1/1024 for each other of 257


@pytest.fixture
def examined() -> SimpleNamespace:
    def logits(ids_BS: torch.Tensor) -> torch.Tensor:
        following = torch.tensor([*SENTENCE.encode(), 256])[1 : ids_BS.shape[1] + 1]
        logits_SV = torch.zeros(len(following), 257).scatter(1, following[:, None], SURE)
        return logits_SV.expand(len(ids_BS), -1, -1)

    return SimpleNamespace(logits=logits, tokenizer=ByteTokenizer(), num_positions=40, begins_after_an_end=True)


def test_last_words(examined):
    found = score_last_words(examined, [SENTENCE, "the cat sat on the hat", "the cat sat"], batch_size=2)
    assert found["accuracy"] == pytest.approx(2 / 3) and found["texts"] == 3
    assert found["accuracy_stderr"] == pytest.approx(math.sqrt(2 / 9 / 2))
    right, wrong = math.log(4 / 3), math.log(1024)
    assert found["perplexity"] == pytest.approx(math.exp((11 * right + wrong) / 3), rel=1e-5)


def test_a_passage_without_a_last_word_is_refused(examined):
    with pytest.raises(UserError, match="passage 2 has no last word"):
        score_last_words(examined, [SENTENCE, "word"], batch_size=2)


def test_documents_are_measured_by_their_bytes(examined):
    examined.begins_after_an_end = False  # nothing stands before a text: its first token is not predicted
    documents = [Document(list(text.encode()), len(text.encode())) for text in (SENTENCE, "the dog")]
    found = score_documents(examined, documents, length=40, stride=40, batch_size=2)
    loss = (24 * math.log(4 / 3) + 3 * math.log(1024)) / 27
    assert found["lm_loss"] == pytest.approx(loss, rel=1e-5)
    assert (found["tokens"], found["bytes"], found["texts"]) == (27, 29, 2)
    assert found["bits_per_byte"] == pytest.approx(loss * 27 / 29 / math.log(2), rel=1e-5)


def test_files(tmp_path):
    (tmp_path / "plain.txt").write_text("one\ntwo\n")
    (tmp_path / "lines.jsonl").write_text('{"text": "three"}\n\n{"text": "four", "id": 1}\n')
    paths = [str(tmp_path / name) for name in ("plain.txt", "lines.jsonl")]
    assert list(read_texts(paths)) == ["one\ntwo\n", "three", "four"]
    (tmp_path / "lines.jsonl").write_text('{"text": "three"}\n{"txt": "four"}\n')
    with pytest.raises(UserError, match=r"lines\.jsonl:2: not a JSON object with a `text`"):
        list(read_texts(paths))
    with pytest.raises(UserError, match=r"absent\.txt: cannot be read"):
        list(read_texts([str(tmp_path / "absent.txt")]))
