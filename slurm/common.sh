# Functions of all jobs; sourced by the scripts beside this file.
#
# Under Slurm a job runs its command with srun; without Slurm by plain bash, where an array becomes a loop.
#   OHMQ_DRY_RUN=1   print each command and run none
#   OHMQ_PYTHON      the Python to use (default: .venv/bin/python of this repository if it is there, else python)
#   OHMQ_DATA        where the data are (default: data): mnist/ (else downloaded), openimages/train, openimages/validation
#                    (or photos/train, photos/validation), kodak/
# Further arguments of a script are added to its command, where a later option wins.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [[ -z ${OHMQ_PYTHON:-} ]]; then
  OHMQ_PYTHON=python
  if [[ -x $ROOT/.venv/bin/python ]]; then OHMQ_PYTHON=$ROOT/.venv/bin/python; fi
fi

# run COMMAND...: run it with Python, under Slurm by srun; or print it.
run() {
  local launch=()
  if [[ -n ${SLURM_JOB_ID:-} ]]; then launch=(srun --unbuffered); fi
  local line=(${launch[@]+"${launch[@]}"} "$OHMQ_PYTHON" "$@")
  if [[ -n ${OHMQ_DRY_RUN:-} ]]; then
    printf '%q' "${line[0]}"
    printf ' %q' "${line[@]:1}"
    echo
  else
    "${line[@]}"
  fi
}

# tasks LAST: print the number of this array task, or without an array all numbers from 0 to LAST.
tasks() {
  if [[ -n ${SLURM_ARRAY_TASK_ID:-} ]]; then echo "$SLURM_ARRAY_TASK_ID"; else seq 0 "$1"; fi
}
