"""The model: GPT backbones on megatron-core layers, and the context head on either.

Read `chunking.py` (the maths), `context_head.py` (pool, predict, fuse), `layers.py` (where the head sits),
`backends.py` (torch or Transformer Engine), `builder.py` (from the configuration to modules). Process
groups come in as arguments; this room looks none up.
"""
