#!/usr/bin/env bash
# ContextLM on GPT-2 small, 139M parameters, for 8 GPUs or a multiple.
#
#     bash examples/gpt2/124m.sh --dry-run                         what it would be; no GPU, no data
#     bash examples/gpt2/124m.sh --laptop                          the same launch on this CPU, the model shrunk
#     DATA_PATH=data/owt_text_document TOKENIZER_MODEL=tokenizer.json SAVE=runs/contextlm bash examples/gpt2/124m.sh
#     BASELINE=1 SAVE=runs/plain ... bash examples/gpt2/124m.sh    plain GPT-2 small, same data, same order
#
# Batch, length and schedule: pretraining.yaml. Many nodes, Slurm and all variables: ../launch.sh.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
model=contextlm-gpt2-124m
if [ "${BASELINE:-0}" = 1 ]; then model=gpt2-124m; fi
exec bash "$here/../launch.sh" --model "$model" --config "${CONFIG:-$here/pretraining.yaml}" \
    --micro-batch-size "${MICRO_BATCH_SIZE:-32}" "$@"
