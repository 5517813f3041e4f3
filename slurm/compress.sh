#!/bin/bash
# Codes images with a model at its full rate.
# Usage: [sbatch | bash] slurm/compress.sh CHECKPOINT IMAGES OUTPUT_DIR [more options]
#SBATCH --job-name=compress
#SBATCH --time=04:00:00
#SBATCH --cpus-per-task=4
#SBATCH --mem=10G
#SBATCH --output=%x_%j.out
# Slurm runs a copy of this file: the repository is where the job was submitted.
source "${SLURM_SUBMIT_DIR:-$(cd "$(dirname "$0")/.." && pwd)}/slurm/common.sh"

if (( $# < 3 )); then
  echo "usage: $0 CHECKPOINT IMAGES OUTPUT_DIR [more options of compress.py]" >&2
  exit 2
fi
run "$ROOT/compress.py" --checkpoint "$1" --image_path "$2" --output_dir "$3" --channel_fractions 1 "${@:4}"
