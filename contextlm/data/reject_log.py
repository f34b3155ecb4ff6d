"""`PREFIX_rejects.jsonl`: what preprocessing left out, one JSON object each: file, line, reason."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from contextlm.data.sources.documents import Reject
from contextlm.errors import UserError


class RejectLog:
    """A context manager; the file is there after `finish`, unless there was nothing to list.

    Attributes:
        count: rejects so far.
    """

    def __init__(self, path: Path) -> None:
        self.count = 0
        self._path = path
        self._part = Path(f"{path}.part")
        self._stream: IO[str] | None = None

    def __enter__(self) -> RejectLog:
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            with contextlib.suppress(OSError):  # what could not be written fails again, and is not wanted any more
                self._stream.close()
            self._part.unlink(missing_ok=True)

    def add(self, rejects: Iterable[Reject]) -> None:
        """List more of them."""
        try:
            for file, line, reason in rejects:
                if self._stream is None:
                    self._stream = open(self._part, "w", encoding="utf-8")  # noqa: SIM115 - closed in __exit__
                self._stream.write(json.dumps({"file": file, "line": line, "reason": reason}) + "\n")
                self.count += 1
        except OSError as error:
            raise self._unwritable(error) from None

    def finish(self) -> None:
        """Let the file appear; an earlier run's, which would be taken for this one's, goes."""
        self._path.unlink(missing_ok=True)
        if self._stream is None:
            return
        try:
            self._stream.flush()
            os.fsync(self._stream.fileno())
            os.replace(self._part, self._path)
        except OSError as error:
            raise self._unwritable(error) from None

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(f"{self._path}: cannot be written ({error.strerror or error}); make room and run it again")
