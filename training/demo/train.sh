#!/usr/bin/env bash
# Makes the bundled demo model from nothing: data, tokenizer, base model, instruct model. About 100 minutes on two cores.
# Each training resumes from its newest checkpoint when the script is started again.
set -euo pipefail
build=${1:-build/demo}
llada_train=${LLADA_TRAIN:-llada-train}

[ -e "$build/data/sft.jsonl" ] || python -m training.demo.build --output-dir "$build/data" --seed 0
[ -e "$build/tokenizer/tokenizer.json" ] || "$llada_train" tokenizer --vocab-size 4096 --output-dir "$build/tokenizer" \
    --train-data-path "$build/data/pretrain.jsonl" --train-data-path "$build/data/sft.jsonl"
[ -e "$build/base/model.safetensors" ] || "$llada_train" pretrain --resume \
    --model-config training/configs/demo-model.json --tokenizer "$build/tokenizer" \
    --train-data-path "$build/data/pretrain.jsonl" --output-dir "$build/base" \
    --max-length 64 --batch-size 48 --max-steps 1400 --learning-rate 1.5e-3 --warmup-steps 100 --save-steps 200
[ -e "$build/instruct/model.safetensors" ] || "$llada_train" sft --resume \
    --model-name-or-path "$build/base" --train-data-path "$build/data/sft.jsonl" --output-dir "$build/instruct" \
    --max-length 160 --pad-to 192 --batch-size 64 --max-steps 3600 --learning-rate 1e-3 --warmup-steps 100 --save-steps 250
[ -e "$build/polished/model.safetensors" ] || "$llada_train" sft --resume \
    --model-name-or-path "$build/instruct" --train-data-path "$build/data/polish.jsonl" --output-dir "$build/polished" \
    --max-length 160 --pad-to 192 --batch-size 64 --max-steps 1200 --learning-rate 6e-4 --warmup-steps 50 --save-steps 100
