"""One run: `setup.py` builds it, `loop.py` trains it, `step.py` is one iteration of it.

Beside them: `evaluation.py`, `optimizer.py` and `schedule.py`, `metrics.py` (metrics.jsonl and the log line),
`exit_status.py` (exit.json).
"""
