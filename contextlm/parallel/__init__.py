"""Processes and devices: the only room that knows ranks.

`runtime.py` chooses the device and starts the process group; `layout.py` splits the processes into
tensor-, pipeline- and data-parallel groups; `seeds.py` seeds them.
"""
