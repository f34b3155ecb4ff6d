"""The layout of Megatron's `.idx` file, little-endian, S sequences and D documents.

    0   9 B   b"MMIDIDX\\x00\\x00"
    9   u64   version, 1
    17  u8    code of the token type in the .bin file
    18  u64   S
    26  u64   D + 1
    34  i32 x S       tokens of each sequence
        i64 x S       byte offset of each sequence in the .bin file
        i64 x (D + 1) first sequence of each document, then S

The `.bin` file is the token ids alone. Written by `indexed_writer.py`, read by `indexed.py`.
"""

from __future__ import annotations

import struct

import numpy as np

MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
HEADER = struct.Struct("<9sQBQQ")
TOKEN_TYPES: dict[int, np.dtype] = {
    1: np.dtype("u1"),
    2: np.dtype("i1"),
    3: np.dtype("<i2"),
    4: np.dtype("<i4"),
    5: np.dtype("<i8"),
    8: np.dtype("<u2"),
}


def token_dtype(vocab_size: int) -> np.dtype:
    """Type of the ids in a `.bin` file: u16 for a vocabulary under 65500, else i32, as Megatron chooses."""
    return TOKEN_TYPES[8] if vocab_size < 65500 else TOKEN_TYPES[4]


def type_code(dtype: np.dtype) -> int:
    """The code of `dtype` in the header."""
    return next(code for code, known in TOKEN_TYPES.items() if known == dtype)


def index_size(num_sequences: int, num_documents: int) -> int:
    """Bytes of an `.idx` file."""
    return HEADER.size + 12 * num_sequences + 8 * (num_documents + 1)
