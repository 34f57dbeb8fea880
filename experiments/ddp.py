"""How the training of the shipped weights scales over the GPUs of one host: `python experiments/ddp.py`.

Writes experiments/results/ddp.json. Each GPU has one process for all runs, which take turns: the recipe's batch on one
GPU, on each of two, of four, … (weak scaling), and split over them (strong scaling); then other seeds on one GPU, for
the spread of the final losses. The network is compiled as the recipe says, once a process and batch size, which
takes longer than all runs: --no-compile leaves it out. Every run stands alone, and what was measured is written
whatever breaks. Needs PyTorch, Lightning and PyYAML; without nilearn's brain, images of its size are drawn. With
--accelerator cpu the processes share the CPU, by gloo.
"""

from __future__ import annotations

import argparse
import os
import queue
import socket
import statistics
import sys
import tempfile
import time
import traceback
import warnings
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "experiments" / "encryptor-weights.yaml"
PATIENCE_S, START_S = 180.0, 120.0
"""For one run and its compilation, and for the processes' start: whoever takes longer is stuck."""


@dataclass(frozen=True)
class Run:
    """One training: its processes, images a process and step, and seed."""

    name: str
    ranks: tuple[int, ...]
    batch: int
    seed: int = 0


def rounds(gpus: int, batch: int) -> list[list[Run]]:
    """What runs after one another; the runs of a round run at a time. Most wanted first."""
    counts = [count for count in (2, 4, 8) if count <= gpus]
    weak = [[Run(f"weak_{count}", tuple(range(count)), batch)] for count in counts]
    strong = [[Run(f"strong_{count}", tuple(range(count)), batch // count)] for count in counts]
    seeds = [Run(f"seed_{1 + n}", (n % gpus,), batch, 1 + n) for n in range(2)]
    return [[Run("one", (0,), batch)], *weak, *strong, *([seeds] if gpus > 1 else [[each] for each in seeds])]


def work(rank: int, args: argparse.Namespace, runs: Any, results: Any) -> None:
    """A process: train whatever comes, until nothing does."""
    warnings.simplefilter("ignore")
    os.environ.setdefault("NCCL_NVLS_ENABLE", "0")
    results.put(("start", rank, _load()))
    while (given := runs.get()) is not None:
        run, port = given
        try:
            results.put((run.name, rank, _train(run, rank, port, args)))
        except Exception as error:
            traceback.print_exc()
            results.put((run.name, rank, f"{type(error).__name__}: {error}"))


def _load() -> dict[str, float]:
    """Everything that runs import, which takes longer than they do."""
    import lightning.pytorch  # noqa: F401, PLC0415
    import yaml  # noqa: F401, PLC0415

    from encdl.data import mixture  # noqa: F401, PLC0415
    from encdl.training.tasks import encrypt  # noqa: F401, PLC0415

    return {}


def _train(run: Run, rank: int, port: int, args: argparse.Namespace) -> dict[str, float]:
    """Images a second of all processes, and the mean loss of this one over the last third of the steps."""
    import torch  # noqa: PLC0415
    from lightning.pytorch import Trainer, seed_everything  # noqa: PLC0415
    from lightning.pytorch.plugins.environments import LightningEnvironment  # noqa: PLC0415
    from lightning.pytorch.strategies import DDPStrategy  # noqa: PLC0415

    count, cuda = len(run.ranks), args.accelerator == "cuda"
    seed_everything(run.seed, verbose=False)
    devices: Any = [rank] if cuda else 1
    settings: dict[str, Any] = {}
    for name in ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE"):
        os.environ.pop(name, None)
    if count > 1:
        here = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "NODE_RANK": 0, "LOCAL_RANK": rank}
        os.environ.update({name: str(value) for name, value in here.items()})
        patience = timedelta(seconds=PATIENCE_S)
        settings["strategy"] = DDPStrategy(
            cluster_environment=LightningEnvironment(),
            process_group_backend="nccl" if cuda else "gloo",
            timeout=patience,
            broadcast_buffers=False,  # as `encdl.training.parallel.strategy` has it
            gradient_as_bucket_view=True,
        )
        devices = count
    task, data, given = _recipe(run, args)
    clock = _clock(args.warm_up, args.steps, cuda)
    trainer = Trainer(
        accelerator="gpu" if cuda else "cpu", devices=devices, max_steps=args.steps, callbacks=[clock],
        benchmark=given["benchmark"], gradient_clip_val=given["gradient_clip_val"], limit_val_batches=0,
        log_every_n_steps=given["log_every_n_steps"], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, **settings,
    )  # fmt: skip
    try:
        trainer.fit(task, data)
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    images = count * run.batch * (args.steps - args.warm_up)
    losses = torch.stack(clock.losses[-max(1, args.steps // 3) :])
    return {"images_per_s": images / (clock.stopped - clock.started), "loss": float(losses.mean())}


def _recipe(run: Run, args: argparse.Namespace) -> tuple[Any, Any, dict[str, Any]]:
    """Task and data as the recipe has them, but for what the arguments say, and the trainer's settings."""
    import yaml  # noqa: PLC0415

    from encdl.ciphers.agile import AgileCipher  # noqa: PLC0415
    from encdl.data.mixture import Mixture  # noqa: PLC0415
    from encdl.training.tasks.encrypt import EncryptTask, LossWeights  # noqa: PLC0415
    from encdl.training.tasks.random_damage import RandomDamage  # noqa: PLC0415

    recipe = yaml.safe_load(RECIPE.read_text())
    model, data = recipe["model"]["init_args"], recipe["data"]["init_args"]
    model |= {
        "cipher": AgileCipher(**model["cipher"]["init_args"] | args.cipher),
        "loss_weights": LossWeights(**model["loss_weights"]),
        "damage": RandomDamage(**model["damage"]),
        "compile": args.compile,
        "seed": run.seed,
    }
    if args.accelerator == "cpu":
        model["precision"] = "32"
    data |= {"parts": {args.data: 1.0}, "data_dir": args.data_dir, "batch_size": run.batch, "seed": run.seed}
    if args.loaders is not None:
        data["num_workers"] = args.loaders
    return EncryptTask(**model), Mixture(**data | {"crop": args.crop or data["crop"]}), recipe["trainer"]


def _clock(warm_up: int, steps: int, cuda: bool) -> Any:
    """A callback that keeps losses, and the times at which the steps that count begin and end."""
    import torch  # noqa: PLC0415
    from lightning.pytorch import Callback  # noqa: PLC0415

    class Clock(Callback):
        def __init__(self) -> None:
            self.started = self.stopped = 0.0
            self.losses: list[torch.Tensor] = []

        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            self.losses.append(outputs["loss"].detach())
            if len(self.losses) in {warm_up, steps}:
                if cuda:
                    torch.cuda.synchronize()
                self.started, self.stopped = self.stopped, time.perf_counter()

    return Clock()


def measure(args: argparse.Namespace) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """What each run gave, by name, and why others gave nothing."""
    context = get_context("spawn")
    results, begun = context.Queue(), time.monotonic()
    queues = [context.Queue() for _ in range(args.gpus)]
    workers = [context.Process(target=work, args=(rank, args, queues[rank], results)) for rank in range(args.gpus)]
    found: dict[str, dict[str, float]] = {}
    failed: dict[str, str] = {}
    try:
        for worker in workers:
            worker.start()
        if len(_gathered(results, args.gpus, START_S)) < args.gpus:
            return found, {"start": f"not all processes answered in {START_S:.0f} s"}
        print(f"{args.gpus} processes ({time.monotonic() - begun:.1f} s)", flush=True)
        for runs in rounds(args.gpus, args.batch):
            if time.monotonic() - begun > args.seconds:
                failed |= {run.name: f"left out after {args.seconds:.0f} s" for run in runs}
                continue
            for run in runs:
                port = _free_port()
                for rank in run.ranks:
                    queues[rank].put((run, port))
            given = _gathered(results, sum(len(run.ranks) for run in runs), PATIENCE_S)
            for run in runs:
                if isinstance(told := _of_ranks(run, given), str):
                    failed[run.name] = told
                else:
                    found[run.name] = told
                    print(
                        f"{run.name}: {told['images_per_s']:,.0f} images/s ({time.monotonic() - begun:.1f} s)",
                        flush=True,
                    )
            if len(given) < sum(len(run.ranks) for run in runs):
                break  # whoever waits for a process that is gone waits on
    finally:
        for rank, worker in enumerate(workers):
            queues[rank].put(None)
            worker.join(5)
            worker.kill()
    return found, failed


def _of_ranks(run: Run, given: list[Any]) -> dict[str, float] | str:
    """What the processes of a run say together, or why they say nothing."""
    mine = [value for name, _, value in given if name == run.name]
    if wrong := [value for value in mine if isinstance(value, str)]:
        return wrong[0]
    if len(mine) < len(run.ranks):
        return f"no answer in {PATIENCE_S:.0f} s"
    means = {name: statistics.fmean(value[name] for value in mine) for name in ("images_per_s", "loss")}
    return {"images_per_s": means["images_per_s"], "final_loss": means["loss"]}


def _gathered(results: Any, count: int, patience_s: float) -> list[Any]:
    found, until = [], time.monotonic() + patience_s
    while len(found) < count:
        try:
            found.append(results.get(timeout=max(0.01, until - time.monotonic())))
        except queue.Empty:
            break
    return found


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def scaling(found: dict[str, dict[str, float]], kind: str) -> dict[str, float]:
    """Images a second of runs over those of one GPU, by number of GPUs."""
    if "one" not in found:
        return {}
    one = found["one"]["images_per_s"]
    return {
        name.partition("_")[2]: run["images_per_s"] / one for name, run in found.items() if name.startswith(f"{kind}_")
    }


def drawn(folder: str) -> None:
    """An .npz file of images of the size of the embedded brain's slices, black around."""
    import numpy as np  # noqa: PLC0415

    rows, columns = np.mgrid[-1:1:233j, -1:1:197j]
    rng = np.random.default_rng(0)
    waves = (np.sin(rows * rng.uniform(2, 30) + columns * rng.uniform(2, 30) + n) for n in range(96))
    images = np.stack([(np.hypot(rows, columns) < 0.9) * (110 + 60 * wave) for wave in waves]).astype(np.uint8)
    np.savez(Path(folder, "drawn.npz"), images=images, split=np.arange(96) % 8 // 6 + np.arange(96) % 8 // 7)


def arguments() -> argparse.Namespace:
    """What the command line says."""
    import json  # noqa: PLC0415

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accelerator", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--gpus", type=int, help="GPUs, or processes on a CPU (default: the GPUs that there are)")
    parser.add_argument("--steps", type=int, default=150, help="of each run, those of the warm-up included")
    parser.add_argument("--warm-up", type=int, default=30, help="steps that no clock counts")
    parser.add_argument("--batch", type=int, default=160, help="images a step of one GPU")
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="train without torch.compile")
    parser.add_argument("--seconds", type=float, default=600.0, help="after so many no further run begins")
    parser.add_argument("--cipher", type=json.loads, default={}, help="other settings of the cipher, as JSON")
    parser.add_argument("--crop", type=int, help="another crop than the recipe's")
    parser.add_argument("--loaders", type=int, help="loader processes of each GPU, other than the recipe's")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "experiments" / "results" / "ddp.json")
    args = parser.parse_args()
    if args.gpus is None:
        import torch  # noqa: PLC0415

        args.gpus = torch.cuda.device_count()
    if args.gpus < 1 or not 0 < args.warm_up < args.steps:
        parser.error(
            "there must be a GPU, and steps must be more than those of the warm-up: --gpus, --steps, --warm-up"
        )
    return args


def main() -> int:
    """Measure, print, write the record."""
    args = arguments()
    started = time.monotonic()
    from encdl.data.embedded import volume  # noqa: PLC0415
    from encdl.utils import records  # noqa: PLC0415

    args.data, args.data_dir = "embedded", "."
    with tempfile.TemporaryDirectory() as folder:
        try:
            volume()
        except Exception:
            drawn(folder)
            args.data, args.data_dir = "drawn", folder
        found, failed = measure(args)
    seeds = [found[name]["final_loss"] for name in ("one", "seed_1", "seed_2") if name in found]
    metrics: dict[str, Any] = {
        "weak_scaling": scaling(found, "weak"),
        "strong_scaling": scaling(found, "strong"),
        "runs": found,
        "final_loss_of_seeds_on_one_gpu": records.summary(seeds) if seeds else None,
        "failed": failed,
    }
    settings = {
        name: value
        for name, value in vars(args).items()
        if name not in {"output", "data_dir", "accelerator", "seconds"}
    }
    content = records.record(
        args.output.stem,
        "ddp",
        config="experiments/encryptor-weights.yaml",
        settings=settings,
        dataset=args.data,
        seeds=[0, 1, 2],
        metrics=metrics,
        wall_s=time.monotonic() - started,
        device=args.accelerator,
    )
    args.output.parent.mkdir(parents=True, exist_ok=True)
    records.write(args.output, content, force=True)
    print(f"weak: {metrics['weak_scaling']}, strong: {metrics['strong_scaling']}, losses: {metrics['runs']}")
    print(f"failed: {failed}; record: {args.output}")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
