"""Train a ContextLM or its plain GPT baseline.

    torchrun --nproc-per-node 4 pretrain_contextlm.py --model contextlm-gpt2-tiny \
      --tensor-model-parallel-size 2 --pipeline-model-parallel-size 2 \
      --data-path data/my_text_document --tokenizer-type SentencePieceTokenizer --tokenizer-model my.model \
      --global-batch-size 16 --train-iters 300 --save checkpoints --load checkpoints

    python pretrain_contextlm.py --model contextlm-gpt2-1.5b --world-size 8 --dry-run

`--help` lists every option. Read next: contextlm/config/resolve.py, then contextlm/training/loop.py.
"""

from __future__ import annotations

import os
import sys

from contextlm.config.resolve import parse
from contextlm.errors import UserError


def main() -> None:
    """Parse, then describe the run or train."""
    try:
        invocation = parse(sys.argv[1:])
        if invocation.dry_run:
            from contextlm.analysis.dry_run import describe

            print(describe(invocation.config, invocation.world_size))
            return
        from contextlm.training.loop import pretrain

        pretrain(invocation.config)
    except UserError as error:
        # Every rank finds the same mistake: one tells it whole, the others in a line.
        problems = error.problems if os.environ.get("RANK", "0") == "0" else error.problems[:1]
        for problem in problems:
            print(f"error: {problem}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
