"""ContextLM: GPT language models with a parallel context head, trained with megatron-core."""

__version__ = "0.1.0"
