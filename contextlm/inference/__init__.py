"""A trained model in one process: `opened.py` loads it, `scoring.py` scores data, `sampling.py` continues text."""
