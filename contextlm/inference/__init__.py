"""A trained model in one process: `subject.py` opens it, whatever it was saved as; the others score and sample it.

`opened.py` opens a checkpoint of ours, `huggingface_subject.py` a folder of transformers.
"""
