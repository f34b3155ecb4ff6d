#!/usr/bin/env bash
# ContextLM on GPT-2 XL, 1.6B parameters, for 8 GPUs or a multiple.
#
#     bash examples/gpt2/1.5b.sh --dry-run                          what it would be; no GPU, no data
#     DATA_PATH=data/owt_text_document TOKENIZER_MODEL=tokenizer.json SAVE=runs/contextlm bash examples/gpt2/1.5b.sh
#     BASELINE=1 SAVE=runs/gpt2 ... bash examples/gpt2/1.5b.sh      plain GPT-2 XL on the same data in the same order
#
# 25 heads divide among 1, 5 or 25 tensor-parallel GPUs, so it is spread by pipeline stages and the distributed
# optimizer. A step is 0.5M tokens, the run 300B. Many nodes and Slurm: ../launch.sh. An option may be given once:
# what stands here is changed through its variable, anything else by adding flags at the end.
set -euo pipefail
model=contextlm-gpt2-1.5b
if [ "${BASELINE:-0}" = 1 ]; then model=gpt2-1.5b; fi
exec bash "$(dirname "${BASH_SOURCE[0]}")/../launch.sh" \
    --model "${MODEL:-$model}" \
    --pipeline-model-parallel-size "${PP:-2}" \
    --micro-batch-size "${MICRO_BATCH_SIZE:-4}" --global-batch-size "${GLOBAL_BATCH_SIZE:-512}" \
    --train-iters "${TRAIN_ITERS:-572000}" --lr-warmup-iters "${WARMUP_ITERS:-5720}" \
    --eval-iters "${EVAL_ITERS:-20}" --bf16 \
    "$@"
