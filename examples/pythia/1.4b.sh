#!/usr/bin/env bash
# ContextLM on Pythia 1.4B, 1.5B parameters, for 8 GPUs or a multiple.
#
#     bash examples/pythia/1.4b.sh --dry-run                       what it would be; no GPU, no data
#     bash examples/pythia/1.4b.sh --laptop                        the same launch on this CPU, the model shrunk
#     DATA_PATH=data/pile_text_document TOKENIZER_MODEL=tokenizer.json SAVE=runs/contextlm bash examples/pythia/1.4b.sh
#     BASELINE=1 SAVE=runs/plain ... bash examples/pythia/1.4b.sh  plain Pythia 1.4B, same data, same order
#
# Two GPUs share each layer's matrices and sequence (TP), the pairs share the data.
# Batch, length and schedule: pretraining.yaml. Many nodes, Slurm and all variables: ../launch.sh.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
model=contextlm-pythia-1.4b
if [ "${BASELINE:-0}" = 1 ]; then model=pythia-1.4b; fi
exec bash "$here/../launch.sh" --model "$model" --config "${CONFIG:-$here/pretraining.yaml}" \
    --tensor-model-parallel-size "${TP:-2}" --sequence-parallel --micro-batch-size "${MICRO_BATCH_SIZE:-8}" "$@"
