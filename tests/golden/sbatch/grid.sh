#!/usr/bin/env bash
# Written by `encdl submit`: 4 x /proj/tiny.yaml
#SBATCH --job-name=grid-of.4
#SBATCH --output=/proj/runs/jobs/tiny/logs/%A_%a.log
#SBATCH --open-mode=append
#SBATCH --export=NONE
#SBATCH --time=1-12:00:00
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=16G
#SBATCH --partition=gpu
#SBATCH --account=lab
#SBATCH --signal=USR1@120
#SBATCH --array=0-3%2
#SBATCH --requeue

set -uo pipefail
cd /proj || exit 1

trial="${SLURM_ARRAY_TASK_ID:-0}"
case "$trial" in
    0) settings=(--model.init_args.tag 'a b' --seed_everything 0) ;;
    1) settings=(--model.init_args.tag 'a b' --seed_everything 1) ;;
    2) settings=(--model.init_args.tag '$(reboot)' --seed_everything 0) ;;
    3) settings=(--model.init_args.tag '$(reboot)' --seed_everything 1) ;;
    *) echo "no training $trial" >&2; exit 1 ;;
esac

place=/proj/runs/jobs/tiny/trials/"$trial"
rm -f "$place/room"
srun --export=ALL --kill-on-bad-exit=1 --cpus-per-task=4 bash -c 'trap : TERM USR1
"${@:2}"
code=$?
case $code in 75 | 138) : > "$1" ;; esac
[ $code -ne 75 ] || [ ! -e "$1" ] || code=0
exit $code' rank "$place/room" \
    encdl fit --config /proj/tiny.yaml \
    --trainer.max_epochs 5 \
    --trainer.devices 1 \
    --resume_every 50 \
    --resume "$place" \
    "${settings[@]}"
code=$?

# The training has saved its place, or had not begun: back into the queue, to go on from there.
if [ -e "$place/room" ] || [ $code -eq 138 ]; then code=75; fi
if [ $code -eq 75 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 100 ]; then
    echo "back into the queue"
    task="${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID:-}}"
    scontrol requeue "${task:-$SLURM_JOB_ID}"
fi
exit $code
