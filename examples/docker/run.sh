#!/usr/bin/env bash
# A command of this checkout inside the image that `docker build -t contextlm .` makes, with this node's GPUs:
#
#     DATA_PATH=data/my_text_document TOKENIZER_MODEL=data/my.json SAVE=runs/my \
#       bash examples/docker/run.sh bash examples/gpt2/1.5b.sh
#     NNODES=2 NODE_RANK=0 MASTER_ADDR=node0 ... bash examples/docker/run.sh bash examples/gpt2/1.5b.sh
#
# data/ and runs/ of the present folder are those of the image; other folders: VOLUMES="-v /pile:/opt/contextlm/pile".
# The network is the host's, so nodes meet as they do without Docker. IMAGE names the image (contextlm). SIGTERM and
# Ctrl-C reach the command, which has STOP_TIMEOUT seconds (300) to save after `docker stop`.
set -euo pipefail
mkdir -p data runs
names=(NNODES NODE_RANK MASTER_ADDR MASTER_PORT LOCAL_ADDR GPUS_PER_NODE BASELINE TP PP MICRO_BATCH_SIZE CONFIG
    DATA_PATH TOKENIZER_MODEL TOKENIZER_TYPE SAVE SAVE_INTERVAL OUTPUT_DIR MAX_RESTARTS NCCL_SOCKET_IFNAME GLOO_SOCKET_IFNAME
    NCCL_IB_HCA NCCL_DEBUG TORCH_ELASTIC_SHUTDOWN_TIMEOUT)
given=()
for name in "${names[@]}"; do
    if [ -n "${!name:-}" ]; then given+=(--env "$name"); fi
done
infiniband=()
if [ -d /dev/infiniband ]; then infiniband=(--device /dev/infiniband --cap-add IPC_LOCK); fi
read -ra volumes <<<"${VOLUMES:-}"
# --ipc host: the ranks talk through /dev/shm, of which an image has 64 MiB. memlock: NCCL pins memory.
exec docker run --rm --gpus all --network host --ipc host --ulimit memlock=-1 --ulimit stack=67108864 \
    --user "$(id -u):$(id -g)" --env HOME=/tmp --stop-timeout "${STOP_TIMEOUT:-300}" "${infiniband[@]}" "${given[@]}" \
    -v "$PWD/data:/opt/contextlm/data" -v "$PWD/runs:/opt/contextlm/runs" "${volumes[@]}" "${IMAGE:-contextlm}" "$@"
