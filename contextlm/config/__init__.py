"""The config room: flags, YAML and presets become one frozen `Config`.

Owns every value a run depends on (`schema.py`) and every way of giving one. Nothing here imports torch,
so `--help` and `--dry-run` answer at once. Read next: `schema.py`, then `resolve.py`.
"""

from contextlm.config.resolve import Invocation, parse
from contextlm.config.schema import Config
from contextlm.config.validation import validate
from contextlm.config.yaml_file import dump, load

__all__ = ["Config", "Invocation", "dump", "load", "parse", "validate"]
