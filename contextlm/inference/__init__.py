"""A trained model in one process: `open_subject.py` opens it, whatever it was saved as; the others score and sample it.

`subject.py` is what they ask of it. `opened.py` opens a checkpoint of ours, `huggingface_subject.py` a folder of
transformers.
"""
