"""python tools/build_index.py --data-path data/my_text_document --seq-length 1024 --train-iters 10000 \\
     --global-batch-size 512

Builds what training will look for in the index cache: the sample orders of large datasets, for all epochs of the run.
It takes the whole command line of a training, so that both name the same orders, and needs neither torch nor a GPU: for
a login node, before the job starts. Training builds itself what is not there. The work is in `contextlm/data/`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from contextlm.config.batch_ramp import num_iterations, samples_after
from contextlm.config.data_checks import missing_data
from contextlm.config.resolve import parse
from contextlm.config.schema import Config
from contextlm.errors import UserError, tell_warnings, told_to_the_user


def build(config: Config, world_size: int | None) -> str:
    """Build for a run of `world_size` processes; the table of its data.

    Raises:
        UserError: the data are not given or not sound, or how many samples the run takes cannot be known.
    """
    from contextlm.data.data_table import Taken, data_table
    from contextlm.data.datasets import build_datasets
    from contextlm.data.tokenizers import build_tokenizer

    if problems := missing_data(config):
        raise UserError(*problems)
    if config.training.global_batch_size is None and world_size is None:
        raise UserError(
            "--global-batch-size: missing, so the samples of the run are not known; give it or --world-size"
        )
    processes = world_size or config.parallel.model_parallel_size
    datasets = build_datasets(
        config, build_tokenizer(config.data, config.model.vocab_size) if config.data.tokenizer_type else None
    )
    samples = samples_after(config, processes, num_iterations(config, processes))
    datasets.prepare(range(max(1, samples)))
    named = {"training": datasets.train, "validation": datasets.validation, "test": datasets.test}
    taken = {"training": samples}
    return data_table({name: Taken(found, taken.get(name, 0)) for name, found in named.items() if found is not None})


@told_to_the_user()
def main(arguments: Sequence[str] | None = None) -> None:
    """Read a training's command line, build, print the table."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    invocation = parse([*words, *(() if "--dry-run" in words else ("--dry-run",))])
    tell_warnings(invocation.warnings)
    print(build(invocation.config, invocation.world_size))


if __name__ == "__main__":
    main()
