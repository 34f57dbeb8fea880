"""Jobs for tests."""

from __future__ import annotations

from typing import Any

from encdl.cluster.job import Job, Request, Surroundings

ROUTINE: dict[str, Any] = {
    "name": "tiny",
    "folder": "/proj/runs/jobs/tiny",
    "workdir": "/proj",
    "config": "/proj/tiny.yaml",
    "settings": (),
    "trials": ((),),
    "request": Request(),
    "surroundings": Surroundings(),
}


def job(**change: Any) -> Job:
    return Job(**{**ROUTINE, **change})


JOBS = {
    "one": job(),
    "grid": job(
        name="grid-of.4",
        settings=(("trainer.max_epochs", "5"),),
        trials=(
            (("model.init_args.tag", "a b"), ("seed_everything", "0")),
            (("model.init_args.tag", "a b"), ("seed_everything", "1")),
            (("model.init_args.tag", "$(reboot)"), ("seed_everything", "0")),
            (("model.init_args.tag", "$(reboot)"), ("seed_everything", "1")),
        ),
        request=Request(time="1-12:00:00", memory="16G", cpus=4, partition="gpu", account="lab", at_once=2),
        resume_every=50,
    ),
    "nodes": job(
        folder="/proj/with spaces/tiny",
        workdir="/proj/with spaces",
        request=Request(
            time="30", nodes=2, gpus=4, grace_s=60, requeues=3, options=("--constraint=a100", "--exclusive")
        ),
        surroundings=Surroundings(
            modules=("cuda/12.4", "apptainer"),
            container="/images/encdl.sif",
            setup=("ulimit -n 4096",),
            environment=(("MLFLOW_TRACKING_URI", "http://tracker:5000"), ("ENCDL_COMMIT", "abc")),
        ),
    ),
    "venv": job(surroundings=Surroundings(venv="/envs/encdl/"), request=Request(processes=2)),
}
"""Of each, tests/golden/sbatch/NAME.sh is the script."""
