#!/bin/bash
# Code a list of images on many machines, without Ray: each task of the array takes every n-th line of the list.
# Usage: sbatch [--array=0-15] slurm_array.sh LIST TARGET [more options of ohmq bulk compress]
#   LIST     a path or URL a line; a tab and the size in bytes may follow
#   TARGET   folder or URL; task 3 writes to TARGET/part-003
# A task that is preempted, or runs out of time, is put back into the queue and goes on where it was.
#SBATCH --job-name=ohmq-bulk
#SBATCH --array=0-15
#SBATCH --cpus-per-task=16
#SBATCH --mem=32G
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x_%A_%a.out
set -euo pipefail

if (( $# < 2 )); then
  echo "usage: $0 LIST TARGET [more options of ohmq bulk compress]" >&2
  exit 2
fi
list=$1 target=${2%/}
task=${SLURM_ARRAY_TASK_ID:-0} tasks=${SLURM_ARRAY_TASK_COUNT:-1}

# The part of the list must be the same when a task starts again; it lies beside the list.
part=$list.$task-of-$tasks
awk -v task="$task" -v tasks="$tasks" 'NR % tasks == task' "$list" > "$part.$$"
mv "$part.$$" "$part"

exec "${OHMQ_PYTHON:-python}" -m ohmq bulk compress --from-list "$part" "$target/part-$(printf %03d "$task")" \
  -j "${SLURM_CPUS_PER_TASK:-1}" "${@:3}"
