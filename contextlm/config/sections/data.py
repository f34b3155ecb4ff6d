"""The `data` section: datasets and tokenizer."""

from __future__ import annotations

from dataclasses import dataclass

from contextlm.config.options import option

KINDS = (
    "ByteTokenizer",
    "GPT2BPETokenizer",
    "HuggingFaceTokenizer",
    "SentencePieceTokenizer",
    "TikTokenizer",
    "NullTokenizer",
)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which tokens, in which order, under which tokenizer."""

    data_path: tuple[str, ...] = option(
        (),
        "Dataset prefixes (files PREFIX.bin and PREFIX.idx): one, several, or weight prefix weight prefix ...",
        example=("0.7", "data/a_text_document", "0.3", "data/b_text_document"),
    )
    split: str | None = option(
        None,
        "Documents of --data-path for training, validation, test: three numbers >= 0; 969,30,1 if not given.",
        example="98,2,0",
    )
    train_data_path: tuple[str, ...] = option(
        (),
        "Training data, written like --data-path, where each split has datasets of its own.",
        example=("data/train_text_document",),
    )
    valid_data_path: tuple[str, ...] = option(
        (), "Validation data, beside --train-data-path.", example=("data/valid_text_document",)
    )
    test_data_path: tuple[str, ...] = option(
        (), "Test data, beside --train-data-path.", example=("data/test_text_document",)
    )
    data_cache_path: str | None = option(
        None,
        "Folder for the sample orders of large datasets, built once for all processes; index_cache beside each dataset "
        "if not given, in memory where nothing can be written.",
        example="data/cache",
    )
    tokenizer_type: str | None = option(
        None,
        "Kind of tokenizer.",
        choices=KINDS,
    )
    tokenizer_model: str | None = option(
        None, "Tokenizer file (.model, tokenizer.json, .tiktoken ...) or folder.", example="tokenizer.json"
    )
    vocab_file: str | None = option(None, "GPT2BPETokenizer's vocabulary.", example="vocab.json")
    merge_file: str | None = option(None, "GPT2BPETokenizer's merges.", example="merges.txt")
    tiktoken_pattern: str | None = option(
        None,
        "How TikTokenizer cuts text into words; v2 if not given.",
        choices=("v1", "v2", "gpt2", "cl100k", "o200k"),
    )
    tiktoken_num_special_tokens: int = option(
        1000, "Ids of special tokens before those of TikTokenizer's .json file.", minimum=7
    )
    eod_token: str | None = option(
        None, "Text of the end-of-document token, where the tokenizer does not say.", example="<|endoftext|>"
    )

    reset_position_ids: bool = option(
        False, "Count positions from the beginning of each document; the chunks begin there, too."
    )
    reset_attention_mask: bool = option(
        False, "Let no token see a document other than its own; the chunks begin with each document, too."
    )
    eod_mask_loss: bool = option(
        False, "Leave out of the loss what is predicted from an end of document, the first token of the next one."
    )

    @property
    def document_split(self) -> str:
        """Shares of the documents of `data_path`."""
        return self.split or "969,30,1"

    @property
    def per_split(self) -> bool:
        """Whether each split has datasets of its own."""
        return bool(self.train_data_path or self.valid_data_path or self.test_data_path)
