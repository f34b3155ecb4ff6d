#!/usr/bin/env bash
# ContextLM on Pythia 410M, 431M parameters, for 8 GPUs or a multiple.
#
#     bash examples/pythia/410m.sh --dry-run                       what it would be; no GPU, no data
#     bash examples/pythia/410m.sh --laptop                        the same launch on this CPU, the model shrunk
#     DATA_PATH=data/pile_text_document TOKENIZER_MODEL=tokenizer.json SAVE=runs/contextlm bash examples/pythia/410m.sh
#     BASELINE=1 SAVE=runs/plain ... bash examples/pythia/410m.sh  plain Pythia 410M, same data, same order
#
# Batch, length and schedule: pretraining.yaml. Many nodes, Slurm and all variables: ../launch.sh.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
model=contextlm-pythia-410m
if [ "${BASELINE:-0}" = 1 ]; then model=pythia-410m; fi
exec bash "$here/../launch.sh" --model "$model" --config "${CONFIG:-$here/pretraining.yaml}" \
    --micro-batch-size "${MICRO_BATCH_SIZE:-16}" "$@"
