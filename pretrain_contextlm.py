"""Train a ContextLM or its plain GPT baseline.

    torchrun --nproc-per-node 4 pretrain_contextlm.py --model contextlm-gpt2-tiny \
      --tensor-model-parallel-size 2 --pipeline-model-parallel-size 2 \
      --data-path data/my_text_document --tokenizer-type SentencePieceTokenizer --tokenizer-model my.model \
      --global-batch-size 16 --train-iters 300 --save checkpoints --load checkpoints

    python pretrain_contextlm.py --model contextlm-gpt2-1.5b --world-size 8 --dry-run

`--help` lists every option. Read next: contextlm/config/resolve.py, then contextlm/training/loop.py.
"""

from __future__ import annotations

import sys

from contextlm.config.batch_ramp import with_batch_size
from contextlm.config.resolve import ConfigurationError, parse
from contextlm.config.yaml_file import dump
from contextlm.data.given_vocabulary import given_vocab_size
from contextlm.errors import UserError, tell_problems, tell_warnings, until_the_reader_leaves


def main() -> None:
    """Parse, then describe the run or train."""
    try:
        with until_the_reader_leaves():
            invocation = parse(sys.argv[1:])
            tell_warnings(invocation.warnings)
            if invocation.print_config:
                config, world_size = invocation.config, invocation.world_size
                print(dump(config if world_size is None else with_batch_size(config, world_size)), end="")
                return
            if invocation.dry_run:
                from contextlm.analysis.dry_run import describe

                print(describe(invocation.config, invocation.world_size, given_vocab_size(invocation.config)))
                return
        from torch.distributed.elastic.multiprocessing.errors import record

        from contextlm.training import faults
        from contextlm.training.loop import pretrain

        try:
            status = record(pretrain)(invocation.config, invocation.preflight_only)
        except faults.Fault as fault:
            faults.tell(fault)
            raise SystemExit(1) from None
        except KeyboardInterrupt:
            faults.tell_interrupted()
            raise SystemExit(130) from None
        raise SystemExit(status)
    except UserError as error:
        if isinstance(error, ConfigurationError) and error.output_dir is not None:
            from contextlm.training import exit_status

            exit_status.write_failure(error.output_dir, error)
        tell_problems(error)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
