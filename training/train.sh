#!/usr/bin/env bash
# Run all stages of a config file with one command; started again, it continues where it stopped.
#
#     training/train.sh config.yaml                    one process
#     NPROC=8 training/train.sh config.yaml            eight processes, with torchrun (all but the tokenizer)
set -euo pipefail
config=${1:?usage: [NPROC=n] training/train.sh config.yaml}

child=
stopping=
# Pass a signal on to the training, which saves a checkpoint and exits; then start no further stage.
trap 'stopping=1; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null || true' TERM INT HUP

run() {
    local status=0
    [ -z "$stopping" ] || exit 143
    "$@" &
    child=$!
    while true; do
        wait "$child" && status=0 || status=$?
        # `wait` also returns when the shell receives a signal.
        kill -0 "$child" 2>/dev/null || break
    done
    child=
    [ "$status" -eq 0 ] || exit "$status"
    [ -z "$stopping" ] || exit 143
}

if [ "${NPROC:-1}" -eq 1 ]; then
    run llada-train pipeline --config "$config" --resume
    exit
fi
stages=$(llada-train pipeline --config "$config" --list-stages)
for stage in $stages; do
    if [ "$stage" = tokenizer ]; then
        run llada-train pipeline --config "$config" --stage "$stage" --resume
    else
        # Saving a checkpoint on SIGTERM may take longer than torchrun's default of 30 seconds.
        run torchrun --standalone --nproc-per-node "$NPROC" --shutdown-timeout 600 \
            -m training.cli pipeline --config "$config" --stage "$stage" --resume
    fi
done
