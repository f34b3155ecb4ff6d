"""To and from Hugging Face: `export_huggingface.py` and `import_huggingface.py`, each proved by `parity.py`.

`weight_names.py` is the table of names, `huggingface_weights.py` applies it, `huggingface_config.py` does the same for
configurations. `huggingface_model/` is the class that transformers loads. Only it, `huggingface.py`, which registers
it, and functions that are called import transformers.
"""
