#!/bin/bash
# Photographs, published network, one-hot max, 0 to 480 channels: the published run (-published: without the warm start that train.py has by default).
#SBATCH --job-name=openimages-ohm-480ch
#SBATCH --time=8-00:00:00
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=4
#SBATCH --mem=32G
#SBATCH --requeue
#SBATCH --signal=SIGUSR1@120
#SBATCH --output=%x_%j.out
# Slurm runs a copy of this file: the repository is where the job was submitted.
source "${SLURM_SUBMIT_DIR:-$(cd "$(dirname "$0")/.." && pwd)}/slurm/common.sh"

run "$ROOT/train.py" -batch_size 32 -n_epochs 10 -learning_rate 1e-4 -lambda_rd 0.95 0.999 \
  -encoder_channels 15360 -bottleneck_channels 0 480 -no_quant_symbols 32 -published \
  --test_sets "${OHMQ_DATA:-data}/kodak" --description openimages_ohm_480ch "$@"
