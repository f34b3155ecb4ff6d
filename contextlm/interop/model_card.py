"""README.md of an exported folder: what the model is, how to load it, and the facts of the run that made it."""

from __future__ import annotations

from typing import Any

from contextlm.config.schema import Config
from contextlm.interop.huggingface_config import CLASSES, context_facts

_PLAIN_USE = """from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{name}")
tokenizer = AutoTokenizer.from_pretrained("{name}")
"""
_CONTEXT_USE = (
    """import contextlm.interop.huggingface  # or, without it: from_pretrained(..., trust_remote_code=True)
"""
    + _PLAIN_USE
)
_METHOD = """
## Method

A context head stands before layer {encoder_layers} of the backbone: it pools each {width} tokens, predicts the next
context with a small causal transformer over chunks, and gives each token the prediction for its chunk (next-context
prediction, "Context-level Language Modeling by Learning Predictive Context Embeddings", arXiv 2510.20280). This is
a reconstruction of the method, not its authors' code. `generate` runs the predictor once per {width} tokens.
"""
_DOCUMENTS_APART = """
## Documents

In training no document saw another one before it, or was counted on from it: give the model one document at a time, as
`generate` does, for a packed row of several is something that it has never seen.
"""


def model_card(name: str, kind: str, config: Config, facts: dict[str, Any], parity: dict[str, Any]) -> str:
    """The text, with the header that the Hub reads.

    Args:
        name: of the folder.
        kind: Hugging Face's `model_type`.
        config: of the run.
        facts: `run.json` of the checkpoint.
        parity: the certificate.
    """
    model, optimizer = config.model, config.optimizer
    samples = facts.get("consumed_samples") or 0
    rows = {
        "preset": config.preset,
        "layers, width, heads": f"{model.num_layers}, {model.hidden_size}, {model.num_attention_heads}",
        "vocabulary": facts.get("vocab_size"),
        "sequence length": model.seq_length,
        **({f"`{key}`": value for key, value in context_facts(config).items()} if config.context.enabled else {}),
        "iteration": facts.get("iteration"),
        "training samples": samples,
        "training tokens": samples * model.seq_length,
        "global batch size": facts.get("global_batch_size"),
        "peak learning rate": optimizer.lr,
        "precision": config.precision,
        "seed": config.training.seed,
        "trained under": facts.get("layout"),
        "data fingerprint": facts.get("data_fingerprint"),
        "tokenizer fingerprint": facts.get("tokenizer_fingerprint"),
        "git commit": facts.get("git_commit"),
        "versions": ", ".join(f"{key} {value}" for key, value in (facts.get("versions") or {}).items()),
    }
    apart = config.data.reset_attention_mask or config.data.reset_position_ids
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items() if value not in (None, ""))
    use = (_CONTEXT_USE if kind == "contextlm" else _PLAIN_USE).format(name=name)
    method = _METHOD.format(encoder_layers=config.encoder_layers, width=config.context.context_chunk_size)
    remarks = (method if config.context.enabled else "") + (_DOCUMENTS_APART if apart else "")
    return (
        f"---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n- {kind}\n---\n\n# {name}\n\n"
        f"A `{CLASSES[kind]}` trained with ContextLM.\n\n```python\n{use}```\n"
        f"{remarks}\n## Run\n\n| | |\n|---|---|\n{table}\n\n## Conversion\n\n"
        "Before this folder got its name its logits were compared with the checkpoint's on random tokens, in fp32: "
        f"the greatest difference is {parity['max_abs_difference']:.3g}, {parity['relative_difference']:.2g} of the "
        "largest logit (`parity.json`).\n"
    )
