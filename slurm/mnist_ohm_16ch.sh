#!/bin/bash
# Digits, one-hot max, 16 channels: the six published runs, two numbers of channels by three ranges of
# lambda (-published: without the warm start that train.py has by default).
#SBATCH --job-name=mnist-ohm-16ch
#SBATCH --time=12:00:00
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=4
#SBATCH --mem=10G
#SBATCH --requeue
#SBATCH --signal=SIGUSR1@120
#SBATCH --array=0-5
#SBATCH --output=%x_%A_%a.out
# Slurm runs a copy of this file: the repository is where the job was submitted.
source "${SLURM_SUBMIT_DIR:-$(cd "$(dirname "$0")/.." && pwd)}/slurm/common.sh"

lambda_min=(0.95 0.95 0.9 0.9 0.85 0.85)
lambda_max=(0.999 0.999 0.999 0.999 0.9 0.9)
channels_min=(0 8 0 8 0 8)

for task in $(tasks 5); do
  name=mnist_ohm_c${channels_min[task]}-16_lambda${lambda_min[task]}-${lambda_max[task]}
  run "$ROOT/train.py" --mnist -batch_size 512 -n_epochs 1000 -learning_rate 1e-3 \
    -lambda_rd "${lambda_min[task]}" "${lambda_max[task]}" -encoder_channels 4096 \
    -bottleneck_channels "${channels_min[task]}" 16 -no_quant_symbols 256 -published \
    --test_sets data/mnist_png/testing --description "$name" -log_interval 1000 "$@"
done
