"""The sbatch script of a job: a function of the job and of nothing else."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence

from encdl.cluster.grid import words
from encdl.cluster.job import Job
from encdl.keys import passphrases, secret_files
from encdl.training.run_folder import EXIT_PREEMPTED
from encdl.utils.errors import UsageError

KILLED_BY_USR1 = 128 + 10
"""Exit code of a process that the signal finds before it listens."""
RANK = f"""trap : TERM USR1
"${{@:2}}"
code=$?
case $code in {EXIT_PREEMPTED} | {KILLED_BY_USR1}) : > "$1" ;; esac
[ $code -ne {EXIT_PREEMPTED} ] || [ ! -e "$1" ] || code=0
exit $code"""
"""Runs a rank, and leaves the file `$1` if it made room. Ranks end one after the other: for the exit code of the first
one srun would kill the others, and would then give the code of a killed one."""
NAMES = r"token|pass(w(or)?d|phrase)|secret|api_?key|access_?key|credential"
SHORT_NAMES = r"(?<![a-z])(pass|pgpass|pwd?|key)(?![a-z])"
"""Words that name a secret where they stand alone, as in `DB_PW`."""
KEY_FILES = {prefix.rpartition("-")[0] for prefix in (*secret_files.SECRET_PREFIXES, passphrases.PREFIX)}
"""How such files begin, before the number of their form."""
SECRETS = {
    rf"({'|'.join(sorted(KEY_FILES))})-\d+:": "the content of a key or grant file",
    r"[a-z][a-z0-9+.-]*://[^/\s:@'\"]*:[^/\s@'\"]+@": "a password in an address",
    # A reference to a variable or a file is none.
    rf"(?i)\b[a-z0-9_]*({NAMES})[a-z0-9_]*=(?![\"']?\$|\s|$)": "the value of a secret",
    # Of these names the value may also be a path.
    rf"(?i)\b[a-z0-9_]*{SHORT_NAMES}[a-z0-9_]*=(?![\"']?[$/~.]|\s|$)": "the value of a secret",
    rf"(?i)--[\w.]*({NAMES})(?![a-z])\s+(?![\"']?\$)\S": "the value of a secret",
    r"(?<![\w:])[0-9a-fA-F]{64}(?!\w)": "what looks like a bare key",
    r"(?i)\bauthorization\s*:|\bbearer\s+[\w.~+/-]{8,}": "an authorisation header",
    r"-----BEGIN [A-Z ]*PRIVATE KEY": "a private key",
    r"\b(ghp|gho|ghs|glpat|hf|sk|xox[abp])[_-][A-Za-z0-9_-]{16,}": "a token",
    r"\bAKIA[A-Z0-9]{16}\b|\bdapi[0-9a-f]{32}\b|\beyJ[\w-]{8,}\.[\w-]{8,}\.": "a token",
}
"""Patterns of secrets, and their names; what matches is never quoted in a message."""
BARE = re.compile(r"(?<![\w+/.:~-])[A-Za-z0-9+_-][A-Za-z0-9+/_-]{39,}={0,2}(?![\w+/.-])")
"""Words as long as a key of 30 bytes and more in base64; no absolute paths."""
HOW_ELSE = "put it where the job itself reads it, such as ~/.mlflow/credentials, or a file that only you can read"


def sbatch_script(job: Job) -> str:
    """The whole text.

    Raises:
        UsageError: A key, a password or a token would stand in it.
    """
    parts = [_directives(job), _surroundings(job), _choice(job), _training(job), _ending(job)]
    text = "\n\n".join("\n".join(part) for part in parts) + "\n"
    refuse_secrets_in(text)
    return text


def summary_script(job: Job, command: Sequence[str]) -> str:
    """A script that runs `encdl COMMAND` on one core, in the surroundings of a job and with its partition and account.

    Raises:
        UsageError: As for `sbatch_script`.
    """
    options = {
        "job-name": f"{job.name}-summary",
        "output": f"{job.folder}/logs/summary.log",
        "open-mode": "append",
        "export": "NONE",
        "ntasks": 1,
        "partition": job.request.partition,
        "account": job.request.account,
    }
    head = ["#!/usr/bin/env bash", "# Written by `encdl sweep`", *_lines(options)]
    container = job.surroundings.container
    run = [*(["apptainer", "exec", container] if container else []), *job.surroundings.program, *command]
    text = "\n\n".join(["\n".join(head), "\n".join(_surroundings(job)), shlex.join(run)]) + "\n"
    refuse_secrets_in(text)
    return text


def _directives(job: Job) -> Iterator[str]:
    request, array = job.request, len(job.trials) > 1
    yield "#!/usr/bin/env bash"
    yield f"# Written by `encdl submit`: {len(job.trials)} x {job.config}"
    options = {
        "job-name": job.name,
        "output": f"{job.folder}/logs/{'%A_%a' if array else '%j'}.log",
        "open-mode": "append",
        "export": "NONE",  # nothing of the environment that submits, in which secrets may stand
        "time": request.time,
        "nodes": request.nodes,
        "ntasks-per-node": request.tasks,
        "cpus-per-task": request.cpus,
        "gpus-per-node": request.gpus or None,
        "mem": request.memory,
        "partition": request.partition,
        "account": request.account,
        "signal": f"USR1@{request.grace_s}",
    }
    if array:
        at_once = f"%{request.at_once}" if request.at_once else ""
        options["array"] = f"0-{len(job.trials) - 1}{at_once}"
    yield from _lines(options)
    yield "#SBATCH --requeue"
    yield from (f"#SBATCH {option}" for option in request.options)


def _lines(options: Mapping[str, object]) -> Iterator[str]:
    """`#SBATCH` lines of those options that are set."""
    for name, value in options.items():
        if value is not None:
            yield f"#SBATCH --{name}={_quoted(str(value))}"


def _quoted(value: str) -> str:
    """A value behind `#SBATCH`, where Slurm takes double quotes around spaces."""
    return f'"{value}"' if " " in value else value


def _surroundings(job: Job) -> Iterator[str]:
    around = job.surroundings
    yield "set -uo pipefail"
    yield f"cd {shlex.quote(job.workdir)} || exit 1"
    yield from (f"module load {shlex.quote(module)} || exit 1" for module in around.modules)
    if around.venv:
        yield f"source {shlex.quote(around.venv.rstrip('/') + '/bin/activate')} || exit 1"
    yield from around.setup
    yield from (f"export {name}={shlex.quote(value)}" for name, value in around.environment)


def _choice(job: Job) -> Iterator[str]:
    """Settings of the training that this task of an array is."""
    yield 'trial="${SLURM_ARRAY_TASK_ID:-0}"'
    yield 'case "$trial" in'
    for number, trial in enumerate(job.trials):
        yield f"    {number}) settings=({shlex.join(words(trial))}) ;;"
    yield '    *) echo "no training $trial" >&2; exit 1 ;;'
    yield "esac"


def _training(job: Job) -> Iterator[str]:
    request, around = job.request, job.surroundings
    yield f'place={shlex.quote(f"{job.folder}/trials")}/"$trial"'
    yield 'rm -f "$place/room"'
    run = ["srun", "--export=ALL", "--kill-on-bad-exit=1"]  # all that this script has and names
    if request.cpus > 1:
        run.append(f"--cpus-per-task={request.cpus}")  # srun does not take it over from the batch script
    each = ["apptainer", "exec", *(["--nv"] if request.gpus else []), around.container] if around.container else []
    each += [*around.program, "fit", "--config", job.config]
    spread = [("trainer.devices", str(request.tasks))]
    if request.tasks * request.nodes > 1:
        spread += [("trainer.num_nodes", str(request.nodes)), ("trainer.strategy", "ddp")]
    given = {key for key, _ in job.settings}
    options = [*job.settings, *(pair for pair in spread if pair[0] not in given)]
    lines = [f'{shlex.join([*run, "bash", "-c", RANK])} rank "$place/room"', shlex.join(each)]
    lines += [f"--{key} {shlex.quote(value)}" for key, value in options]
    if job.resume_every:
        lines.append(f"--resume_every {job.resume_every}")
    lines += ['--resume "$place"', '"${settings[@]}"']
    yield " \\\n    ".join(lines)
    yield "code=$?"


def _ending(job: Job) -> Iterator[str]:
    yield "# The training has saved its place, or had not begun: back into the queue, to go on from there."
    yield f'if [ -e "$place/room" ] || [ $code -eq {KILLED_BY_USR1} ]; then code={EXIT_PREEMPTED}; fi'
    yield f'if [ $code -eq {EXIT_PREEMPTED} ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {job.request.requeues} ]; then'
    yield '    echo "back into the queue"'
    # One task of an array has the number of the array itself: that number alone would requeue all of them.
    yield '    task="${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID:-}}"'
    yield '    scontrol requeue "${task:-$SLURM_JOB_ID}"'
    yield "fi"
    yield "exit $code"


def refuse_secrets_in(text: str) -> None:
    """Look through a script.

    Raises:
        UsageError: Something in it looks like a secret; the message does not repeat it.
    """
    found = [(match.start(), what) for pattern, what in SECRETS.items() for match in re.finditer(pattern, text)]
    found += [(bare.start(), "what looks like a bare key") for bare in BARE.finditer(text) if _random(bare[0])]
    if found:
        place, what = min(found)
        line = text.count("\n", 0, place) + 1
        raise UsageError(f"line {line} of the script would hold {what}, and others may read it: {HOW_ELSE}")


def _random(word: str) -> bool:
    """Whether a word is rather drawn than written: many letters of all kinds, and few parts of a path."""
    kinds = (str.islower, str.isupper, str.isdigit)
    mixed = all(any(kind(letter) for letter in word) for kind in kinds)
    return mixed and len(set(word)) >= 20 and word.count("/") <= 3
