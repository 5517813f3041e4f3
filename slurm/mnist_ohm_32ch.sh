#!/bin/bash
# Digits, one-hot max, 0 to 32 channels, lambda 0.95 to 0.999: the published run (-published: without the warm start that train.py has by default).
#SBATCH --job-name=mnist-ohm-32ch
#SBATCH --time=12:00:00
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=4
#SBATCH --mem=10G
#SBATCH --requeue
#SBATCH --signal=SIGUSR1@120
#SBATCH --output=%x_%j.out
# Slurm runs a copy of this file: the repository is where the job was submitted.
source "${SLURM_SUBMIT_DIR:-$(cd "$(dirname "$0")/.." && pwd)}/slurm/common.sh"

run "$ROOT/train.py" --mnist -batch_size 512 -n_epochs 1000 -learning_rate 1e-3 -lambda_rd 0.95 0.999 \
  -encoder_channels 8192 -bottleneck_channels 0 32 -no_quant_symbols 256 -published \
  --test_sets data/mnist_png/testing --description mnist_ohm_32ch -log_interval 1000 "$@"
