"""The comparison room: matched models trained as pairs from one study file, and what their difference is worth.

`study.py` reads the file, `runs.py` knows what is done, `jobs.py` trains the rest, `results.py` reports. The
program is `tools/compare.py`.
"""
