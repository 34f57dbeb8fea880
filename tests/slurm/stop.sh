#!/usr/bin/env bash
# Ends what start.sh FOLDER started, and the jobs in it.
folder=$(realpath -m "$1")
export SLURM_CONF="$folder/slurm.conf"
timeout 20 scancel --user=root 2> /dev/null
for _ in $(seq 40); do [ -z "$(timeout 5 squeue --noheader 2> /dev/null)" ] && break; sleep 0.25; done
for file in "$folder"/slurmd-*.pid "$folder"/{slurmctld,munged}.pid; do
    [ -f "$file" ] && kill "$(cat "$file")" 2> /dev/null
done
exit 0
