"""Hugging Face's formats: which of its weights is which of ours, and the tensor maths between them.

`weight_names.py` is the table, `huggingface_weights.py` applies it to whole tensors. Nothing here imports
transformers.
"""
