#!/usr/bin/env bash
# ContextLM on Pythia 1.4B, 1.5B parameters, for 8 GPUs or a multiple.
#
#     bash examples/pythia/1.4b.sh --dry-run                        what it would be; no GPU, no data
#     DATA_PATH=data/pile_text_document TOKENIZER_MODEL=tokenizer.json SAVE=runs/contextlm bash examples/pythia/1.4b.sh
#     BASELINE=1 SAVE=runs/pythia ... bash examples/pythia/1.4b.sh  plain Pythia on the same data in the same order
#
# Two GPUs share each layer's matrices (TP 2), the pairs share the data. A step is 2.1M tokens and the run 143,000
# steps, Pythia's own. Many nodes and Slurm: ../launch.sh. An option may be given once: what stands here is changed
# through its variable, anything else by adding flags at the end.
set -euo pipefail
model=contextlm-pythia-1.4b
if [ "${BASELINE:-0}" = 1 ]; then model=pythia-1.4b; fi
exec bash "$(dirname "${BASH_SOURCE[0]}")/../launch.sh" \
    --model "${MODEL:-$model}" \
    --tensor-model-parallel-size "${TP:-2}" \
    --micro-batch-size "${MICRO_BATCH_SIZE:-8}" --global-batch-size "${GLOBAL_BATCH_SIZE:-1024}" \
    --train-iters "${TRAIN_ITERS:-143000}" --lr-warmup-iters "${WARMUP_ITERS:-1430}" \
    --eval-iters "${EVAL_ITERS:-20}" --bf16 \
    "$@"
