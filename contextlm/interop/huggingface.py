"""`import contextlm.interop.huggingface` makes transformers' AutoConfig and AutoModelForCausalLM know ContextLM.

The one import of this package with an effect. Without it an exported folder loads with `trust_remote_code=True`.
"""

from __future__ import annotations

from transformers import AutoConfig, AutoModelForCausalLM

from contextlm.interop.huggingface_model.cache_contextlm import ContextCache
from contextlm.interop.huggingface_model.configuration_contextlm import ContextLMConfig
from contextlm.interop.huggingface_model.modeling_contextlm import ContextLMForCausalLM

__all__ = ["ContextCache", "ContextLMConfig", "ContextLMForCausalLM"]

AutoConfig.register("contextlm", ContextLMConfig)
AutoModelForCausalLM.register(ContextLMConfig, ContextLMForCausalLM)
