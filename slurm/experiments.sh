#!/bin/bash
# Experiments by name (ohmq experiments list), one array task each or a few in one. Without Slurm one after the other.
#SBATCH --job-name=experiments
#SBATCH --time=12:00:00
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=4
#SBATCH --mem=16G
#SBATCH --requeue
#SBATCH --signal=SIGUSR1@120
#SBATCH --array=0-12
#SBATCH --output=%x_%A_%a.out
# Slurm runs a copy of this file: the repository is where the job was submitted.
source "${SLURM_SUBMIT_DIR:-$(cd "$(dirname "$0")/.." && pwd)}/slurm/common.sh"

# The MNIST grid. Most OHM runs start from one of them: all are one task, one after the other. Array tasks beyond the grid:
# sbatch --array=0-N with names=(...) of your own.
names=(
  'mnist-ohm-*'
  mnist-int-c0-16-lambda{0.85-0.9,0.9-0.999,0.95-0.999} mnist-int-c8-16-lambda{0.85-0.9,0.9-0.999,0.95-0.999}
  mnist-int-c0-{8,32}-lambda0.95-0.999 mnist-int-warm-c0-{8,16,32}-lambda0.95-0.999
  mnist-none-c32
)

for task in $(tasks $((${#names[@]} - 1))); do
  run -m ohmq experiments run "${names[task]}" "$@"
done
