"""SentencePiece `.model` files. `tokenizer_training.py` makes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from contextlm.data.batch_encoding import EncodeArray, QuickLibrary
from contextlm.data.tokenizer_interface import Tokenizer, fingerprint
from contextlm.errors import UserError

SPACE = "\u2581"  # How SentencePiece writes a space inside a piece.


class SentencePieceTokenizer(Tokenizer):
    """A SentencePiece model.

    EOD is `eod_token`, else the model's own end-of-sentence piece (`</s>`), else there is none.

    Raises:
        UserError: the file is missing or no SentencePiece model, or it has no piece `eod_token`.
    """

    kind = "SentencePieceTokenizer"

    def __init__(self, model: Path, eod_token: str | None = None) -> None:
        import sentencepiece

        if not model.is_file():
            raise UserError(f"--tokenizer-model {model}: no such file; give a SentencePiece .model file")
        self._model = model.read_bytes()
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=self._model)
        except RuntimeError as error:
            raise UserError(f"--tokenizer-model {model}: not a SentencePiece model ({error})") from None
        self.vocab_size = self._processor.vocab_size()
        self.fingerprint = fingerprint(self.kind, [self._model])
        self.eod = self._processor.eos_id() if eod_token is None else self._processor.piece_to_id(eod_token)
        if eod_token is not None and self.eod == self._processor.unk_id():
            raise UserError(f"--eod-token {eod_token}: {model} has no such piece")
        if self.eod < 0:
            self.eod = None
        self.eod_token = None if self.eod is None else self._processor.id_to_piece(self.eod)

    @property
    def control_texts(self) -> Mapping[int, str]:
        """EOD alone: the text of control pieces never produces them, but a user-defined EOD would."""
        return {} if self.eod is None or self.eod_token is None else {self.eod: self.eod_token}

    def _encode(self, text: str) -> list[int]:
        return self._processor.encode(text)

    def _quick_libraries(self) -> Iterable[QuickLibrary]:
        return [QuickLibrary("gigatoken", self._gigatoken)]

    def _gigatoken(self) -> EncodeArray:
        import gigatoken

        return gigatoken.Tokenizer.from_sentencepiece(self._model).encode

    def _special_texts(self) -> Iterable[str]:
        sp = self._processor
        control = [token for token in range(self.vocab_size) if sp.is_control(token) or sp.is_unknown(token)]
        return {sp.id_to_piece(token) for token in control} | set(self.control_texts.values())

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`; control pieces have none."""
        return self._processor.decode([int(token) for token in ids if int(token) != self.eod])

    def token_byte_lengths(self) -> np.ndarray:
        """int32 `[vocab_size]`: the bytes of each piece, 1 for a byte piece, 0 for control pieces."""
        lengths = np.zeros(self.vocab_size, dtype=np.int32)
        sp = self._processor
        for token in range(self.vocab_size):
            if sp.is_byte(token):
                lengths[token] = 1
            elif not (sp.is_control(token) or sp.is_unknown(token) or sp.is_unused(token) or token == self.eod):
                lengths[token] = len(sp.id_to_piece(token).replace(SPACE, " ").encode())
        return lengths

    def _model_files(self) -> Mapping[str, bytes]:
        return {"tokenizer.model": self._model}
