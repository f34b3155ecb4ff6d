"""Trials: one real run, one fault at a random moment, the same command again, and a verdict.

    python -m tests.faults.soak --trials 200 --jobs 2 --seed 0

A program (`soak.py`) imports what a rank needs once and forks a process for each trial (`trial.py`), which forks a
launcher (`launcher.py`), which forks the ranks: real processes, that can be killed, without the seconds that a start
takes. What is done to a run is in `kills.py`, `saves.py`, `damages.py` and `inside.py`; what it must have come to, in
`verdict.py`; what the verdict must notice, in `controls.py`.
"""
