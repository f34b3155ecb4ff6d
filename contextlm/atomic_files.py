"""Files that appear under their final name only when they are complete.

Small files pass through here. Token streams (`data/indexed_writer.py`) and checkpoints
(`training/checkpoint_folder.py`) are too large for that and follow the same rule: temporary name, fsync, rename.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write `content` to `path` so that a kill at any moment leaves the old file or the new one."""
    temporary = f"{path}.part"
    with open(temporary, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)


def write_json(path: str | Path, content: Any) -> None:
    """Write `content` as indented JSON with a final newline, atomically."""
    write_bytes(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())
