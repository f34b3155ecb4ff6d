#!/usr/bin/env bash
# Starts pretrain_contextlm.py with the options given here on every GPU of this node. The launchers beside this file
# (gpt2/, pythia/) name a model and call it; docs/launching.md shows the places. What it reads, by place:
#
#     one node    GPUS_PER_NODE (what Slurm gave, else 8)
#     many nodes  NNODES, NODE_RANK, MASTER_ADDR, MASTER_PORT (29500): the same command on every node; LOCAL_ADDR, this
#                 node's address, where its host name means nothing to the others
#     srun        nothing more: srun --nodes 4 --ntasks-per-node 1 bash examples/gpt2/1.5b.sh
#
# --dry-run only describes the run, --laptop shrinks it and trains it on this machine's CPU; neither needs more.
# To train: DATA_PATH (prefix, or "weight prefix weight prefix ..."), SAVE (checkpoints; an interrupted job resumes from
# there), TOKENIZER_MODEL and TOKENIZER_TYPE (HuggingFaceTokenizer). May be set: SAVE_INTERVAL (1000), OUTPUT_DIR
# ($SAVE), MAX_RESTARTS (0: how often torchrun starts failed ranks again, from the last checkpoint), PYTHON (python).
# On nodes with several networks GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME name the interface for hosts and for GPUs.
#
# The exit status and the last lines, cause and remedy, are those of exit.json: torchrun's own status is 1 whatever
# happened. SIGTERM, SIGUSR1 and Ctrl-C are passed on: the ranks save and the status is 75, for a scheduler that starts
# the job again. torchrun gives them TORCH_ELASTIC_SHUTDOWN_TIMEOUT seconds (30) for that.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python}

fail() { echo "error: $1" >&2; exit 1; }

# srun sets these inside each task; in a batch script outside of srun every node would believe to be the first.
if [ -n "${SLURM_STEP_NUM_NODES:-}" ]; then
    case ${SLURM_STEP_TASKS_PER_NODE:-1} in
        1 | "1(x"*) ;;
        *) fail "srun started $SLURM_STEP_TASKS_PER_NODE tasks per node; use srun --ntasks-per-node 1" ;;
    esac
elif [ "${SLURM_NNODES:-1}" -gt 1 ] && [ -z "${NNODES:-}" ]; then
    fail "Slurm gave $SLURM_NNODES nodes, but this runs on one; start it with srun --ntasks-per-node 1"
fi
nodes=${NNODES:-${SLURM_STEP_NUM_NODES:-1}}
node_rank=${NODE_RANK:-${SLURM_NODEID:-0}}
gpus=${GPUS_PER_NODE:-${SLURM_GPUS_ON_NODE:-8}}

case " $* " in
    *" --laptop "*) exec "$python" "$root/examples/laptop/rehearse.py" --world-size $((nodes * gpus)) "$@" ;;
    *" --dry-run "*) exec "$python" "$root/pretrain_contextlm.py" --world-size $((nodes * gpus)) "$@" ;;
esac

tokenizer=${TOKENIZER_MODEL:-${TOKENIZER_TYPE:-}}
[ -n "$tokenizer" ] || fail "TOKENIZER_MODEL: not set; give the tokenizer's file, or TOKENIZER_TYPE of one without"
[ -n "${SAVE:-}" ] || fail "SAVE: not set; give the folder for checkpoints, which all nodes share"
data=()
case " $* " in
    *" --data-config "* | *" --data-args-path "* | *" --train-data-path "*) ;;
    *)
        [ -n "${DATA_PATH:-}" ] || fail "DATA_PATH: not set; give the prefix of your data, or try --dry-run or --laptop"
        read -ra data <<<"--data-path $DATA_PATH"
        ;;
esac
output=${OUTPUT_DIR:-$SAVE}

if [ "$nodes" -eq 1 ]; then  # a free port that only this machine can reach
    rendezvous=(--rdzv-endpoint 127.0.0.1:0 --local-addr 127.0.0.1)
else
    if [ -z "${MASTER_ADDR:-}" ] && [ -n "${SLURM_STEP_NODELIST:-}" ]; then
        MASTER_ADDR=$(scontrol show hostnames "$SLURM_STEP_NODELIST")
    fi
    [ -n "${MASTER_ADDR:-}" ] || fail "MASTER_ADDR: not set; give the host name of the node with NODE_RANK 0"
    # The node of rank 0 holds the meeting point; told so, no node has to recognise its own name.
    is_host=$([ "$node_rank" -eq 0 ] && echo 1 || echo 0)
    rendezvous=(--rdzv-endpoint "${MASTER_ADDR%%$'\n'*}:${MASTER_PORT:-29500}" --rdzv-id "${SLURM_JOB_ID:-contextlm}"
        --rdzv-conf "is_host=$is_host,read_timeout=600"  # seconds to wait for the first node
        ${LOCAL_ADDR:+--local-addr "$LOCAL_ADDR"})
fi

record=$output/exit.json
case " $* " in
    *" --skip-train "*) record= ;;  # it writes none, and leaves that of the run which it evaluates
esac
# A job that fails before its ranks exist must not report how an earlier one ended.
[ "$node_rank" -ne 0 ] || [ -z "$record" ] || rm -f "$record"
set -m  # a process group of its own: Ctrl-C reaches this script only, which passes it on
(
    trap '' USR1  # Slurm may signal every process of a step; torchrun would die of it, and leave its ranks behind
    exec "$python" -m torch.distributed.run --nnodes "$nodes" --nproc-per-node "$gpus" \
        --rdzv-backend c10d "${rendezvous[@]}" --max-restarts "${MAX_RESTARTS:-0}" \
        "$root/pretrain_contextlm.py" "${data[@]}" --tokenizer-type "${TOKENIZER_TYPE:-HuggingFaceTokenizer}" \
        ${TOKENIZER_MODEL:+--tokenizer-model "$TOKENIZER_MODEL"} --save "$SAVE" --load "$SAVE" \
        --save-interval "${SAVE_INTERVAL:-1000}" --output-dir "$output" "$@"
) &
ranks=$!
set +m
trap 'kill -TERM "$ranks" 2>/dev/null || true' TERM USR1 INT
status=0
wait "$ranks" || status=$?
while kill -0 "$ranks" 2>/dev/null; do  # a signal ended the waiting, not the ranks
    status=0
    wait "$ranks" || status=$?
done
trap '' TERM USR1 INT  # the ranks are gone: where another node failed first, srun may yet send this one a signal
if [ "$status" -ne 0 ] && [ -f "$record" ]; then
    recorded=$("$python" -c 'import json, sys
record = json.load(open(sys.argv[1]))
print("rank {rank}: {cause}".format(**record), *filter(None, [record.get("remedy")]), sep="\n      ", file=sys.stderr)
print(record["status"])' "$record")
    [ "$recorded" -eq 0 ] || status=$recorded
elif [ "$status" -ne 0 ] && [ -n "$record" ]; then
    hint=$([ "$nodes" -eq 1 ] || echo "; if the $nodes nodes did not meet, see \"What to do when\" in docs/launching.md")
    echo "torchrun ended with status $status before any rank told why: its own lines are above$hint" >&2
fi
exit "$status"
