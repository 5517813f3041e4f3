#!/usr/bin/env bash
# Check this machine's GPU, then train a photo model on it for some minutes and export it:
#   tools/train_on_gpu.sh DATA START MINUTES OUTPUT [further options of ohmq train]
# DATA: photos, such as the folder of tools/pack_photos.py. START: model to start from. CHECKS=0 leaves the long checks of
# tools/check_gpu.sh out, CHECKS=1 runs them first. BATCH, CROP, RATE and PERCEPTUAL change the settings below; DEVICE=cpu tries
# the script out. OUTPUT/model.safetensors is the result; when the run is stopped, the same command goes on.
set -euo pipefail
if [ $# -lt 4 ]; then
    sed -n '2,6s/^# //p' "$0" >&2
    exit 2
fi
data=$1 start=$2 minutes=$3 output=$4
shift 4
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}"
device=${DEVICE:-auto} batch=${BATCH:-32} crop=${CROP:-256} rate=${RATE:-8e-4} perceptual=${PERCEPTUAL:-0.6}
step=(--start-from "$start" --batch-size "$batch" --crop-size "$crop" --perceptual "$perceptual")
if [ "${CHECKS:-0}" = 1 ]; then
    tools/check_gpu.sh
fi
"$PYTHON" tools/check_training_step.py "$data" "${step[@]}" --device "$device"
"$PYTHON" -m ohmq train --preset photo --data "$data" -o "$output" --resume --minutes "$minutes" --data-on-device \
    --devices 1 --device "$device" --learning-rate "$rate" --num-workers 0 "${step[@]}" "$@"
ls -l "$output/model.safetensors"
