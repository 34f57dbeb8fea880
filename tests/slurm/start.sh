#!/usr/bin/env bash
# A Slurm of this machine, for tests: start.sh FOLDER [NODES]. Needs root and apt's slurm-wlm and munge. More nodes than
# one are simulated: a slurmd each, with all of the cores and its share of the memory.
# Afterwards `export SLURM_CONF=FOLDER/slurm.conf`; stop.sh FOLDER ends it.
set -euo pipefail
folder=$(realpath -m "$1")
controller_port=${SLURM_TEST_PORT:-16817}
mkdir -p "$folder"/{state,spool,log}
host=$(hostname -s)
count=${2:-1}
nodes=("$host")
if [ "$count" -gt 1 ]; then mapfile -t nodes < <(seq --format="$host-%.0f" "$count"); fi
cores=$(getconf _NPROCESSORS_ONLN)  # not nproc, which OMP_NUM_THREADS misleads
memory=$(awk '/^MemTotal/ { print int(($2 / 1024 - 512) / '"$count"') }' /proc/meminfo)

cat > "$folder/slurm.conf" <<CONF
ClusterName=encdl-test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$controller_port
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# A requeued job waits until its old credential has expired: seconds here, two minutes by default.
AuthInfo=cred_expire=5,socket=$folder/munge.socket
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool/%n
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd-%n.log
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=1
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
KillWait=5
MinJobAge=36000
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
port=$controller_port
for node in "${nodes[@]}"; do
    echo "NodeName=$node NodeHostname=$host NodeAddr=127.0.0.1 Port=$((++port)) CPUs=$cores RealMemory=$memory State=UNKNOWN"
done >> "$folder/slurm.conf"
export SLURM_CONF="$folder/slurm.conf"

# Slurm finds its controller by name, and the ranks of a training the first of its nodes.
for name in "$host" "${nodes[@]}"; do
    getent hosts "$name" > /dev/null || echo "127.0.0.1 $name" >> /etc/hosts
done

# A munge of this cluster's own: another key and socket than the machine's, if it has one. It insists on folders that
# nobody else can write to, all the way up, which a folder below /tmp is not: --force takes it all the same.
head -c 128 /dev/urandom > "$folder/munge.key"
chmod 400 "$folder/munge.key"
/usr/sbin/munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" \
    --pid-file="$folder/munged.pid" --log-file="$folder/log/munged.log" --seed-file="$folder/munge.seed"

slurmctld -f "$SLURM_CONF"
for _ in $(seq 120); do scontrol ping 2> /dev/null | grep -q UP && break; sleep 0.25; done
for node in "${nodes[@]}"; do slurmd -f "$SLURM_CONF" -N "$node"; done
for _ in $(seq 240); do
    idle=$(sinfo --noheader --states=idle --format=%D 2> /dev/null || true)
    if [ "${idle:-0}" = "$count" ]; then exit 0; fi
    sleep 0.25
done
echo "not all nodes came up: see $folder/log" >&2
exit 1
