#!/usr/bin/env bash
# A Slurm of one node on this machine, for tests: start.sh FOLDER. Needs root and apt's slurm-wlm and munge.
# Afterwards `export SLURM_CONF=FOLDER/slurm.conf`; stop.sh FOLDER ends it.
set -euo pipefail
folder=$(realpath -m "$1")
controller_port=${SLURM_TEST_PORT:-16817}
mkdir -p "$folder"/{state,spool,log}
node=$(hostname -s)
cores=$(getconf _NPROCESSORS_ONLN)  # not nproc, which OMP_NUM_THREADS misleads
memory=$(awk '/^MemTotal/ { print int($2 / 1024) - 512 }' /proc/meminfo)

cat > "$folder/slurm.conf" <<CONF
ClusterName=encdl-test
SlurmctldHost=$node(127.0.0.1)
SlurmctldPort=$controller_port
SlurmdPort=$((controller_port + 1))
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# A requeued job waits until its old credential has expired: seconds here, two minutes by default.
AuthInfo=cred_expire=5,socket=$folder/munge.socket
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.log
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
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
NodeName=$node NodeAddr=127.0.0.1 CPUs=$cores RealMemory=$memory State=UNKNOWN
PartitionName=main Nodes=$node Default=YES MaxTime=INFINITE State=UP
CONF
export SLURM_CONF="$folder/slurm.conf"

# Slurm finds its own node by name.
getent hosts "$node" > /dev/null || echo "127.0.0.1 $node" >> /etc/hosts

# A munge of this cluster's own: another key and socket than the machine's, if it has one. It insists on folders that
# nobody else can write to, all the way up, which a folder below /tmp is not: --force takes it all the same.
head -c 128 /dev/urandom > "$folder/munge.key"
chmod 400 "$folder/munge.key"
/usr/sbin/munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" \
    --pid-file="$folder/munged.pid" --log-file="$folder/log/munged.log" --seed-file="$folder/munge.seed"

slurmctld -f "$SLURM_CONF"
for _ in $(seq 120); do scontrol ping 2> /dev/null | grep -q UP && break; sleep 0.25; done
slurmd -f "$SLURM_CONF" -N "$node"
for _ in $(seq 240); do
    if sinfo --noheader --format=%T 2> /dev/null | grep -q '^idle'; then exit 0; fi
    sleep 0.25
done
echo "the node did not come up: see $folder/log" >&2
exit 1
