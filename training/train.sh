#!/usr/bin/env bash
# All stages of a config file in one command; started again, it goes on where it was.
#
#     training/train.sh config.yaml                    one process
#     NPROC=8 training/train.sh config.yaml            eight, through torchrun (pre-training and SFT)
set -euo pipefail
config=${1:?usage: [NPROC=n] training/train.sh config.yaml}
stages=(tokenizer pretraining sft)
for stage in "${stages[@]}"; do
    grep -q "^$stage:" "$config" || continue
    if [ "$stage" != tokenizer ] && [ "${NPROC:-1}" -gt 1 ]; then
        # A checkpoint saved on SIGTERM may take longer than torchrun's 30 seconds.
        torchrun --standalone --nproc-per-node "$NPROC" --shutdown-timeout 600 -m training.cli pipeline --config "$config" --stage "$stage" --resume
    else
        llada-train pipeline --config "$config" --stage "$stage" --resume
    fi
done
