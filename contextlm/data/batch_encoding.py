"""Many texts at once, by a quicker library that first has to prove that it gives the same ids.

The libraries differ tenfold in speed, and the quickest are the youngest. So one is used only after it has agreed
with the tokenizer's own `encode`, on odd texts and on the first documents; one that errs is dropped, and that is
said. What holds the text of a special token never reaches it: such libraries let a document forge its end.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

EncodeArray = Callable[[str], np.ndarray]

SAMPLE_CHARACTERS = 1 << 15  # of the first documents
# A library that remembers every word it has met must not grow for ever.
GROWTH_BYTES = 200 << 20
CHARACTERS_BETWEEN_LOOKS = 16 << 20
# Where libraries have differed: classes of characters, runs of blanks, line ends, contractions, normal forms, bytes.
ODD_TEXTS = (
    "",
    " ",
    "The quick brown fox can't, won't and shouldn't've; they'll, we'd, I'm, YOU'RE.",
    "  two  three   spaces\t\ttabs \n\n\nlines\r\n\r\n windows \n  indented\n\t mixed   ",
    "0 12 345 6789 1,234,567.89 3.14e-10 0xFF ²³ ½ Ⅷ ٣٤٥ 一二三",
    "def f(x: int) -> int:\n    return x**2  # comment\n\n\n<p class='a'>&amp;</p> https://a.b/c?d=e#f",
    "naïve café Ångström e\u0301 A\u030a ﬁ ǅ ß İı Straße ÄÖÜ çğş",
    "日本語の文章。中文字符，标点！한국어 ไทยภาษา हिन्दी العربية עברית ελληνικά русский",
    "😀👍🏽👨‍👩‍👧‍👦🇩🇪 ♥️ ∑∫√ → “quotes” ‘single’ – — … « »",
    "\u00a0\u2003\u200b\u200d\u2028\u2029\u3000\ufeff\x00\x01\x0b\x0c\x1c\x85\xad end \ufffd \U0010ffff \ue000",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa !!!!!!!!!! ---------- ========== __init__ a_b-c.d",
    "<|im_start|> <s> [INST] {{x}} ▁ Ġ <0x0A> ##ing @@",
    "word " * 300 + "\n" * 40 + " " * 400 + "x",
)


class QuickLibrary(NamedTuple):
    """Another library for the same vocabulary; `load` imports it and gives its function for one text."""

    name: str
    load: Callable[[], EncodeArray]


class BatchEncoder:
    """What `Tokenizer.encode_batch` does; the library is chosen when the first texts arrive.

    Args:
        encode: the tokenizer's own way, right by definition.
        libraries: quicker ones, the best first.
        special_texts: texts that such a library may take for a token of their own.
        control: the tokenizer's control tokens and their texts.

    Attributes:
        library: name of the library in use; None for the tokenizer's own, or before the first texts.
        notices: why a quicker one is not used, one sentence each.
    """

    def __init__(
        self,
        encode: Callable[[str], list[int]],
        libraries: Iterable[QuickLibrary],
        special_texts: Iterable[str],
        control: Mapping[int, str],
    ) -> None:
        self.library: str | None = None
        self.notices: list[str] = []
        self._own = encode
        self._libraries = list(libraries)
        self._special = _search(special_texts)
        self._control = np.array(sorted(control), dtype=np.int64)
        self._quick: EncodeArray | None = None
        self._load: Callable[[], EncodeArray] | None = None
        self._chosen = False
        self._memory: _Memory  # since there is a library to load

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """As `Tokenizer.encode_batch`."""
        if not self._chosen:
            self._choose(texts)
        elif self._load is not None and self._memory.has_grown(texts):
            self._quick = None  # Forget what it remembers of all the words it has met.
            self._quick, self._memory = self._load(), _Memory()
        pieces = [self._encode(text) for text in texts]
        lengths = np.fromiter(map(len, pieces), np.int64, len(pieces))
        ids = np.concatenate(pieces) if pieces else np.empty(0, np.uint32)
        if self._quick is not None and self._forged(ids):
            pieces = [
                self._slow(text) if self._forged(piece) else piece for text, piece in zip(texts, pieces, strict=True)
            ]
            lengths = np.fromiter(map(len, pieces), np.int64, len(pieces))
            ids = np.concatenate(pieces)
        return ids, lengths

    def _encode(self, text: str) -> np.ndarray:
        if self._quick is None or self._special(text):
            return self._slow(text)
        try:
            return self._quick(text)
        except Exception:
            return self._slow(text)  # It has the last word on what is wrong with the text.

    def _slow(self, text: str) -> np.ndarray:
        return np.asarray(self._own(text), dtype=np.uint32)

    def _forged(self, ids: np.ndarray) -> bool:
        """Whether a control token is among `ids`."""
        if not len(self._control):
            return False
        near = ids[(ids >= self._control[0]) & (ids <= self._control[-1])]
        return bool(np.isin(near, self._control).any())

    def _choose(self, texts: Sequence[str]) -> None:
        self._chosen = True
        for name, load in self._libraries:
            try:
                quick = load()
            except ImportError:
                self.notices.append(f"{name} is not installed; with it this is much faster: pip install {name}")
                continue
            except Exception as error:
                reason = _first_line(error)
                self.notices.append(f"{name} does not read this vocabulary: the same tokens, more slowly ({reason})")
                continue
            wrong = next((text for text in self._sample(texts) if not self._agrees(quick, text)), None)
            if wrong is None:
                self.library, self._quick, self._load = name, quick, load
                self._memory = _Memory()
                return
            self.notices.append(f"{name} gives other ids for the text {wrong[:40]!r} and is not used")

    def _sample(self, texts: Sequence[str]) -> Iterator[str]:
        left = SAMPLE_CHARACTERS
        for text in (*ODD_TEXTS, *texts):
            if left > 0 and not self._special(text):
                yield text[:left]
                left -= len(text)

    def _agrees(self, quick: EncodeArray, text: str) -> bool:
        try:
            right = self._slow(text)
        except ValueError:
            return True  # The tokenizer itself refuses it, so no library is asked.
        try:
            return np.array_equal(quick(text), right)
        except Exception:
            return False


class _Memory:
    """How much more memory this process has come to need; it is looked at once in a while."""

    def __init__(self) -> None:
        self._characters = 0
        self._before: int | None = None  # as it is at the first look

    def has_grown(self, texts: Sequence[str]) -> bool:
        """Whether that is too much, `texts` being what comes next."""
        self._characters += sum(map(len, texts))
        if self._characters < CHARACTERS_BETWEEN_LOOKS:
            return False
        import psutil

        now = psutil.Process().memory_info().rss
        self._characters, self._before = 0, self._before or now
        return now - self._before > GROWTH_BYTES


def _search(texts: Iterable[str]) -> Callable[[str], object]:
    """A function that is true of what holds one of `texts`."""
    wanted = sorted(filter(None, texts))
    if len(wanted) == 1:
        return lambda text: wanted[0] in text
    if not wanted:
        return lambda text: False
    return re.compile("|".join(map(re.escape, wanted))).search


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
