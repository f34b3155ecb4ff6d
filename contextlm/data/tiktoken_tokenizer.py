"""tiktoken's vocabularies from a file: Megatron-LM's JSON, or the plain `.tiktoken` rank file."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from contextlm.data.huggingface_tokenizer import USUAL_EOD_TOKENS, configured_eos
from contextlm.data.tokenizer_interface import Tokenizer, fingerprint
from contextlm.errors import UserError

# How text is cut into words before any merge; the names are those of `--tiktoken-pattern`.
PATTERNS = {
    "v1": r"[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
    "v2": (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
        r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s",
    "cl100k": (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
        r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
    ),
    "o200k": (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
}
# Megatron-LM's, with the ids 0, 1, 2 ... before those of the vocabulary; `<SPECIAL_7>` and so on fill up.
SPECIAL_TOKENS = ("<unk>", "<s>", "</s>", "<mask>", "<pad>", "<cls>", "<sep>")
MOST_TOKENS = 1 << 17


class TikTokenizer(Tokenizer):
    """A vocabulary of tiktoken.

    Of a `.json` file the first `vocab_size` - `num_special_tokens` entries are used, after as many special tokens, as
    in Megatron-LM. A `.tiktoken` file gives ids as they are; special tokens are those of a `tokenizer_config.json`
    beside it. EOD is `eod_token`, else the one in `tokenizer_config.json`, else the one special token among
    `USUAL_EOD_TOKENS`; one that a `.tiktoken` file does not have is added after its last id.

    Args:
        pattern: a name in `PATTERNS`; v2 if None.
        num_special_tokens: ids before those of a `.json` file.
        vocab_size: ids in all, of a `.json` file; those it has, at most Megatron-LM's 131,072, if None.

    Raises:
        UserError: the file is missing or of another kind, tiktoken is not installed, EOD cannot be told.
    """

    kind = "TikTokenizer"

    def __init__(
        self,
        model: Path,
        eod_token: str | None = None,
        pattern: str | None = None,
        num_special_tokens: int = 1000,
        vocab_size: int | None = None,
    ) -> None:
        try:
            import tiktoken
        except ImportError:
            raise UserError("--tokenizer-type TikTokenizer: needs a library; pip install tiktoken") from None
        if not model.is_file():
            raise UserError(f"--tokenizer-model {model}: no such file; give a .json or .tiktoken vocabulary")
        self._where = f"--tokenizer-model {model}"
        self._name = "tokenizer.json" if model.suffix == ".json" else "tokenizer.tiktoken"
        self._content = model.read_bytes()
        configured = configured_eos(model.parent)
        if model.suffix == ".json":
            ranks, special = self._megatron(num_special_tokens, vocab_size)
        else:
            ranks, special = self._plain(_configured_special(model.parent), eod_token or configured)
        self._given = {
            "tiktoken_pattern": pattern or "v2",
            "tiktoken_num_special_tokens": num_special_tokens,
            "given_vocab_size": vocab_size,
        }
        self._special = special
        self.eod_token = eod_token or configured or self._usual_eod()
        if self.eod_token not in special:
            raise UserError(f"--eod-token {self.eod_token}: {self._where} has no such special token")
        self.eod = special[self.eod_token]
        self._encoding = tiktoken.Encoding(
            "file", pat_str=PATTERNS[pattern or "v2"], mergeable_ranks=ranks, special_tokens=special
        )
        self._tokens = {token: text for text, token in ranks.items()}
        self.vocab_size = 1 + max(*ranks.values(), *special.values())
        self.fingerprint = fingerprint(
            self.kind, [self._content, (pattern or "v2").encode(), json.dumps(sorted(special.items())).encode()]
        )

    def _megatron(self, num_special: int, vocab_size: int | None) -> tuple[dict[bytes, int], dict[str, int]]:
        flag = f"--tiktoken-num-special-tokens {num_special}"
        most = vocab_size or MOST_TOKENS
        if not len(SPECIAL_TOKENS) <= num_special < most:
            raise UserError(f"{flag}: give a number from {len(SPECIAL_TOKENS)}, and less than the vocabulary of {most}")
        try:
            entries = json.loads(self._content)[: most - num_special]
            words = [base64.b64decode(entry["token_bytes"], validate=True) for entry in entries]
            if [entry["rank"] for entry in entries] != list(range(len(entries))) or len(set(words)) != len(words):
                raise ValueError("the ranks are not 0, 1, 2 ..., or a token is there twice")
            if words[:256] != [bytes([value]) for value in range(256)]:
                raise ValueError("the first 256 tokens are not the 256 bytes")
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(
                f"{self._where}: not a list of tiktoken's tokens as Megatron-LM writes it ({error!r})"
            ) from None
        if vocab_size is not None and len(words) + num_special < vocab_size:
            raise UserError(
                f"--vocab-size {vocab_size}: {self._where} has {len(words)} tokens, with {num_special} special ones "
                f"that makes {len(words) + num_special}; give that, or leave it out"
            )
        fillers = [f"<SPECIAL_{token}>" for token in range(len(SPECIAL_TOKENS), num_special)]
        special = {text: token for token, text in enumerate([*SPECIAL_TOKENS, *fillers])}
        return {word: num_special + rank for rank, word in enumerate(words)}, special

    def _plain(self, special: dict[str, int], eod_token: str | None) -> tuple[dict[bytes, int], dict[str, int]]:
        ranks: dict[bytes, int] = {}
        try:
            for line in self._content.splitlines():
                if line:
                    word, rank = line.split()
                    ranks[base64.b64decode(word, validate=True)] = int(rank)
            if len(set(ranks.values())) < max(len(ranks), 256) or min(ranks.values()) < 0:
                raise ValueError("a rank is there twice or negative, or there are fewer tokens than bytes")
        except (ValueError, binascii.Error) as error:
            raise UserError(f"{self._where}: not a .tiktoken file, a token and its rank per line ({error})") from None
        if eod_token is not None and eod_token not in special:
            special = {**special, eod_token: 1 + max(*ranks.values(), *special.values())}
        return ranks, special

    def _usual_eod(self) -> str:
        found = [token for token in USUAL_EOD_TOKENS if token in self._special]
        if len(found) != 1:
            raise UserError(
                f"{self._where}: the end-of-document token cannot be told (special tokens among "
                f"{', '.join(USUAL_EOD_TOKENS)}: {', '.join(found) or 'none'}); set --eod-token"
            )
        return found[0]

    @property
    def control_texts(self) -> Mapping[int, str]:
        """Every special token."""
        return {token: text for text, token in self._special.items()}

    def _encode(self, text: str) -> list[int]:
        return self._encoding.encode_ordinary(text)

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`; special tokens have none."""
        return b"".join(self._tokens.get(int(token), b"") for token in ids).decode(errors="replace")

    def token_byte_lengths(self) -> np.ndarray:
        """int32 `[vocab_size]`: the bytes of each token, 0 for special ones."""
        lengths = np.zeros(self.vocab_size, dtype=np.int32)
        for token, word in self._tokens.items():
            lengths[token] = len(word)
        return lengths

    def _model_files(self) -> Mapping[str, bytes]:
        if self._name.endswith(".json"):
            return {self._name: self._content}
        entries = {str(token): {"content": text, "special": True} for text, token in self._special.items()}
        return {
            self._name: self._content,
            "tokenizer_config.json": json.dumps({"added_tokens_decoder": entries}).encode(),
        }

    def _settings(self) -> Mapping[str, Any]:
        return self._given


def _configured_special(folder: Path) -> dict[str, int]:
    """Special tokens that a tokenizer_config.json beside the file lists, as Hugging Face writes them."""
    path = folder / "tokenizer_config.json"
    if not path.is_file():
        return {}
    try:
        entries = json.loads(path.read_text(encoding="utf-8")).get("added_tokens_decoder", {})
        return {entry["content"]: int(token) for token, entry in entries.items() if entry.get("special")}
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not as Hugging Face writes it ({error!r}); mend or remove it") from None
