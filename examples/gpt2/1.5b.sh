#!/usr/bin/env bash
# ContextLM on GPT-2 XL, 1.6B parameters, for 8 GPUs or a multiple.
#
#     bash examples/gpt2/1.5b.sh --dry-run                         what it would be; no GPU, no data
#     bash examples/gpt2/1.5b.sh --laptop                          the same launch on this CPU, the model shrunk
#     DATA_PATH=data/owt_text_document TOKENIZER_MODEL=tokenizer.json SAVE=runs/contextlm bash examples/gpt2/1.5b.sh
#     BASELINE=1 SAVE=runs/plain ... bash examples/gpt2/1.5b.sh    plain GPT-2 XL, same data, same order
#
# 25 heads divide among 1, 5 or 25 tensor-parallel GPUs, so it is spread by pipeline stages (PP) and the distributed
# optimizer. Batch, length and schedule: pretraining.yaml. Many nodes, Slurm and all variables: ../launch.sh.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
model=contextlm-gpt2-1.5b
if [ "${BASELINE:-0}" = 1 ]; then model=gpt2-1.5b; fi
exec bash "$here/../launch.sh" --model "$model" --config "${CONFIG:-$here/pretraining.yaml}" \
    --pipeline-model-parallel-size "${PP:-2}" --micro-batch-size "${MICRO_BATCH_SIZE:-4}" "$@"
