"""python -m tests.golden.update

Trains the 20 golden iterations and writes their losses to `golden_losses.txt`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.cli.programs import losses, make_dataset, train

FILE = Path(__file__).with_name("golden_losses.txt")


def main() -> None:
    """Make the tests' dataset, train, write."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        done = train(make_dataset(folder), folder / "run", "--train-iters", "20")
        assert done.returncode == 0, done.stderr
        lines = [f"{i} {loss:.6f}\n" for i, loss in enumerate(losses(folder / "run"), start=1)]
    FILE.write_text("# iteration loss; written by python -m tests.golden.update\n" + "".join(lines))
    print(f"wrote {FILE}")


if __name__ == "__main__":
    main()
