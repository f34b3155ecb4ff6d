"""A model to examine, from a checkpoint of ours or from a Hugging Face folder: what every tool here asks of one.

Shapes: B sequences of S tokens, V ids of the vocabulary.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from contextlm.checkpoints import checkpoint_folder
from contextlm.config.schema import Config
from contextlm.config.yaml_file import load as load_config
from contextlm.data.tokenizer_interface import Tokenizer
from contextlm.inference.opened import Opened

if TYPE_CHECKING:
    from contextlm.model.token_batch import DocumentEnds


@dataclass(frozen=True)
class Subject:
    """A whole model in evaluation mode, without gradients.

    Attributes:
        folder: what was opened.
        facts: what the folder says of it, for the results.
        tokenizer: of the model.
        model: the trainer's model, or one of transformers.
        trainer: what else is known of a checkpoint of ours; None for a model of transformers.
        document_ends: what the end of a document changed in its training; None if not known.
        device: where it computes.
        num_positions: tokens that it reads at most.
        chunk_size: tokens a chunk; 0 without a context head.
    """

    folder: Path
    facts: dict[str, Any]
    tokenizer: Tokenizer
    model: torch.nn.Module
    trainer: Opened | None
    document_ends: DocumentEnds | None
    device: torch.device
    num_positions: int
    chunk_size: int

    @torch.no_grad()
    def logits(self, ids_BS: Tensor) -> Tensor:
        """Logits [B, S, V]; rows may be padded on the right, whose columns nobody else sees."""
        ids_BS = ids_BS.to(self.device)
        if self.trainer is None:
            return self.model(ids_BS, use_cache=False).logits
        tokens_BS, positions_BS, documents = self.trainer.document_ends.inputs(ids_BS.cpu(), ids_BS)
        logits_BSV = self.model(tokens_BS, positions_BS, None, packed_seq_params=documents)
        return logits_BSV[..., : self.tokenizer.vocab_size]

    @torch.no_grad()
    def losses(self, samples: Tensor) -> Tensor:
        """Cross-entropy of each token but the first of samples [B, S + 1], nats, fp32 [B, S].

        The ends of documents mean what they meant in the training; what did not count there is NaN.
        """
        if self.trainer is None:
            labels_BS = samples[:, 1:].to(self.device)
            return functional.cross_entropy(self.logits(samples[:, :-1]).float().mT, labels_BS, reduction="none")
        batch = self.trainer.document_ends.batch(samples, self.device)
        tokens_BS, positions_BS, documents = batch.inputs
        loss_BS = self.model(tokens_BS, positions_BS, None, labels=batch.labels_BS, packed_seq_params=documents).float()
        return loss_BS if batch.scored_BS is None else loss_BS.masked_fill(~batch.scored_BS, float("nan"))

    @property
    def begins_after_an_end(self) -> bool:
        """Whether a text may stand behind an end of document, as in the training; not if that changed what follows."""
        ends = self.document_ends
        return self.tokenizer.eod is not None and (ends is None or not (ends.matter_to_layers or ends.eod_mask_loss))

    def weights_sha256(self) -> str:
        """Of the weights as they are in memory: the same for every layout that a checkpoint was saved under."""
        digest = hashlib.sha256()
        for name, weight in sorted(self.model.named_parameters()):
            digest.update(name.encode())
            digest.update(weight.detach().contiguous().cpu().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def identity(self) -> dict[str, Any]:
        """What results must carry to say whose they are."""
        return {
            "checkpoint": str(self.folder),
            **self.facts,
            "tokenizer_fingerprint": self.tokenizer.fingerprint,
            "parameters": sum(weight.numel() for weight in self.model.parameters()),
            "weights_sha256": self.weights_sha256(),
        }


def configuration(folder: Path) -> Config:
    """The configuration of the model in an `iter_` folder or a Hugging Face folder, for the trainer's model."""
    if (folder / checkpoint_folder.CONFIG_FILE).is_file():
        return load_config(folder / checkpoint_folder.CONFIG_FILE)
    from contextlm.interop.huggingface_config import from_huggingface_config
    from contextlm.interop.loaded_huggingface import CONFIG, read_config

    return from_huggingface_config(read_config(folder), str(folder / CONFIG))


def from_checkpoint(ours: Opened) -> Subject:
    """An open checkpoint as a subject."""
    facts = {
        "format": "contextlm",
        "iteration": ours.facts.get("iteration"),
        "consumed_samples": ours.facts.get("consumed_samples"),
        "model": ours.config.preset,
        "git_commit": ours.facts.get("git_commit"),
    }
    positions, chunk_size = ours.config.model.num_positions, ours.config.context.context_chunk_size
    ends = ours.document_ends
    return Subject(ours.folder, facts, ours.tokenizer, ours.model, ours, ends, ours.device, positions, chunk_size)
