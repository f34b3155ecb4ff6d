"""The model class that transformers loads: three files that need nothing of ours and travel in every exported folder.

`configuration_contextlm.py`, `cache_contextlm.py`, `modeling_contextlm.py`. Importing them registers nothing;
`contextlm/interop/huggingface.py` does that.
"""
