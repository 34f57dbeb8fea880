"""`encdl fit`, `validate` and `test`: one Lightning run from one YAML file."""

from __future__ import annotations

import inspect
import json
import os
import pickle
import sys
import warnings
from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ActionYesNo, DefaultHelpFormatter, Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from encdl.ciphers.weights import SETTINGS_KEY
from encdl.data.base import ImageDataModule
from encdl.training import class_names, mistakes, recipe_code, remarks
from encdl.training.callbacks import EpochBar, ImagePanel, ProgressLines, ResultTable, TellHowToGoOn
from encdl.training.model_logging import LogReaderModel
from encdl.training.parallel import check_processes, plugins_for_jobs, strategy, synchronised
from encdl.training.resume import Preempted, ResumePoint, SeededSteps
from encdl.training.run_folder import CHECKPOINT, hold, run_key
from encdl.training.signals import TakeSignals
from encdl.training.tracking import RunRecord, run_id_of, run_logger
from encdl.utils.errors import UsageError
from encdl.utils.messages import warn
from encdl.utils.processes import Terminated, terminable

USAGE = "encdl fit --recipe NAME | --config YAML [--SETTING VALUE ...]"
OVERVIEW = """Train. What is set most often, over what the YAML says:

  --resume FOLDER                          keep the run's place there; the same command goes on
  --trainer.max_epochs N
  --trainer.devices N --trainer.strategy ddp
  --trainer.default_root_dir FOLDER        where runs go (default: runs)
  --trainer.logger false                   nothing goes into MLflow
  --no-panels                              no plaintext images in MLflow (or the run's folder)
  --data CLASS --data.init_args.NAME VALUE images, as in data/README.md
  --data.init_args.batch_size N
  --model.init_args.learning_rate X
  --model.init_args.view CLASS             what a reader sees: Ciphertext, Plaintext, Keyless, FixedKey
  --seed_everything N                      the first weights
  --local-classes                          let class paths name modules of the working directory

A recipe is code: its class paths are imported. Take none from strangers that you would not run as a program.
All there is, most of it Lightning's:
"""

RESUME_SETTINGS = ("resume", "resume_every")
ORDER_SETTINGS = ("batch_size", "repeats", "seed")
"""Of the data: what the place of a run among its images counts in."""


class Parser(LightningArgumentParser):
    """Raises on a wrong setting instead of printing pages of usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise what jsonargparse found, in one line."""
        raise mistakes.of_setting(message, ex) from ex


class Help(RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Keeps the lines of the description as they are."""


class RecordConfig(SaveConfigCallback):
    """Stores the whole configuration with the run: config.yaml and parameters in MLflow, else a file.

    The file lies in the other logger's folder, or else in `default_root_dir`.
    """

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Store it; called once, on rank 0."""
        text = self.parser.dump(self._recipe(), skip_none=False)
        logger = run_logger(trainer)
        if logger is not None:
            logger.log_config(self._settings(), text)
            return
        folder = Path(getattr(trainer.logger, "log_dir", None) or trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(text)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Let the checkpoint say how it came about: the settings, and where they were read from."""
        files = [Path(str(path)).name for path in self.config.get("config") or []]
        checkpoint[SETTINGS_KEY] = {"files": files, "settings": self._settings()}

    def _recipe(self) -> Namespace:
        """The configuration without the place of this one run, which who runs it again must not continue."""
        recipe = self.config.clone()
        for name in RESUME_SETTINGS:
            recipe.pop(name, None)
        return recipe

    def _settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = json.loads(self.parser.dump(self._recipe(), format="json"))
        settings.pop("config", None)
        return settings


class TrainingCLI(LightningCLI):
    """Lightning's command line for any task on any data set, with this project's tracking and callbacks.

    Args:
        argv: The verb and its settings; without `run`, the settings alone.
        run: Do what the verb says, rather than only make task, data and trainer.
    """

    def __init__(self, argv: Sequence[str], run: bool = True) -> None:
        try:
            super().__init__(
                LightningModule,
                ImageDataModule,
                save_config_callback=RecordConfig,
                save_config_kwargs={"save_to_log_dir": False},
                trainer_defaults={
                    "default_root_dir": "runs",
                    "sync_batchnorm": True,
                    "logger": {"class_path": "encdl.training.tracking.RunLogger"},
                },
                seed_everything_default=0,
                parser_class=Parser,
                parser_kwargs={
                    "allow_abbrev": False,
                    "formatter_class": Help,
                    "parser_mode": class_names.MODE,
                    "fit": {"usage": USAGE, "description": OVERVIEW},
                },
                subclass_mode_model=True,
                subclass_mode_data=True,
                auto_configure_optimizers=False,
                args=list(argv),
                run=run,
            )
        except Exception as error:
            if (told := self._told(error)) is error:
                raise
            raise told from error

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what lets a run be stopped at any time, and let loggers follow `default_root_dir`."""
        parser.add_instantiator(self._logger, Logger)
        parser.add_argument(
            "--resume",
            type=str | None,
            default=None,
            help="fit: keep the run's place in this folder, and go on from there if it has one",
        )
        parser.add_argument(
            "--resume_every",
            type=int,
            default=0,
            help="fit: save the place every so many training batches; by default every 5 minutes and at validations",
        )

        parser.add_argument(
            "--panels",
            action=ActionYesNo(no_prefix="no-"),
            default=True,
            help="draw validation images, PLAINTEXT ones too, into the MLflow run or the run's folder",
        )

    def _logger(self, kind: type[Logger], *args: Any, **settings: Any) -> Logger:
        """Make a logger; the folder that nobody gave it is `default_root_dir`."""
        known = inspect.signature(kind).parameters
        for name in ("root", "save_dir"):
            if name in known and settings.get(name) == known[name].default:
                settings[name] = self._setting("trainer").default_root_dir
        return kind(*args, **settings)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse `args` only; the base class would also look at, and warn about, the process's own."""
        self.words = list(args)  # type: ignore[arg-type]
        settings = [class_names.current(word) for word in self.words if word != recipe_code.OPTION]
        with recipe_code.installed_only(allowed=recipe_code.OPTION in self.words):
            self.config = parser.parse_args(settings)

        if verb := self.config.get("subcommand"):
            given = self.config[verb]
            if given.get("weights_only") is False:
                raise UsageError("--weights_only false: it would let a checkpoint run any code: leave it out")
            # Plain values and tensors only: Lightning would let checkpoints from an address run code.
            given["weights_only"] = True
            # Kept from Lightning until later: it would take settings out of it, and here the words say what runs.
            path = self.checkpoint = given.get("ckpt_path")
            given["ckpt_path"] = None
            if path and Path(path).is_file():
                mistakes.content_of(path, "--ckpt_path")
            elif path and "://" not in path:
                # Words such as `last` mean files of a run that has not begun yet; Lightning would go on without one.
                raise UsageError(f"{path}: no such checkpoint: give the name of a .ckpt file (--ckpt_path)")

    def before_instantiate_classes(self) -> None:
        """Give the checkpoint back to the settings, and refuse to go on twice."""
        if self.subcommand is not None:
            self.config[self.subcommand]["ckpt_path"] = self.checkpoint
            mistakes.check_goes_on(self.subcommand, self._setting("resume"), self.checkpoint)

    def _setting(self, name: str) -> Any:
        """A setting of the verb, as it was given."""
        return (self.config[self.subcommand] if self.subcommand else self.config).get(name)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Make the trainer, with those of this project's callbacks that the configuration does not list."""
        made = self.config_init[self.subcommand] if self.subcommand else self.config_init
        settings = made["trainer"]
        given = settings.get("callbacks") or []
        callbacks: list[Callback] = [*given] if isinstance(given, list) else [given]
        usual: list[Callback] = [RunRecord(), ResultTable(), SeededSteps(), LogReaderModel()]
        if settings.get("enable_checkpointing") is not False and not settings.get("fast_dev_run"):
            usual.append(ModelCheckpoint(save_last=True))
        bar = settings.get("enable_progress_bar")
        own_bar = any(isinstance(callback, ProgressBar) for callback in callbacks)
        if bar is None and not own_bar and not sys.stdout.isatty():
            bar = False  # in a file it would show nothing until the end
            usual.append(ProgressLines())
        elif bar is not False and not own_bar:
            usual.append(EpochBar())
        if not self._setting("panels"):
            callbacks = [callback for callback in callbacks if not isinstance(callback, ImagePanel)]
        elif find_spec("matplotlib"):
            usual.append(ImagePanel())
        else:
            rank_zero_info("No panels are drawn: matplotlib is not installed here")
        listed = tuple(type(callback) for callback in callbacks)
        callbacks += [callback for callback in usual if not issubclass(type(callback), listed)]
        callbacks.insert(0, TakeSignals())
        if folder := self._setting("resume"):
            # The last of all, since its checkpoints hold the others' state.
            callbacks.append(ResumePoint(folder, self._setting("resume_every")))
        else:
            callbacks.append(TellHowToGoOn(self.words))
        changed = {
            "callbacks": callbacks,
            "enable_progress_bar": bar,
            "plugins": plugins_for_jobs(settings.get("plugins")),
            "strategy": strategy(settings.get("strategy"), self.model),
            "sync_batchnorm": synchronised(settings),
        }
        trainer = super().instantiate_trainer(**{**kwargs, **changed})
        check_processes(trainer)
        return trainer

    def before_fit(self) -> None:
        """Continue the MLflow run of the checkpoint that training continues from."""
        checkpoint = self._setting("ckpt_path")
        logger = run_logger(self.trainer)
        folder = self._setting("resume")
        if folder:
            for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, ResumePoint):
                    callback.listen()
            if checkpoint:
                raise UsageError("--resume and --ckpt_path both say where to go on: give one of them")
            if self.trainer.is_global_zero:
                self.place = hold(folder)
                if logger is not None:
                    logger.claim(run_key(folder))
            if (file := Path(folder, CHECKPOINT)).is_file():
                self._check_fits(file, "--resume")
                self.config_init["fit"]["ckpt_path"] = str(file)
                warnings.filterwarnings("ignore", "(?s)Checkpoint directory .* exists and is not empty")
        elif checkpoint and Path(checkpoint).is_file():
            self._check_fits(checkpoint, "--ckpt_path")
            run_id = run_id_of(checkpoint) if logger is not None else None
            if logger is not None and run_id is not None:
                logger.resume(run_id)
                warnings.filterwarnings("ignore", "(?s)Checkpoint directory .* exists and is not empty")

    def _told(self, error: Exception) -> Exception:
        """The error, or one line on the checkpoint if its parts are not what they should be."""
        config = getattr(self, "config_init", {})
        verb = config.get("subcommand")
        checkpoint = config[verb].get("ckpt_path") if verb else None
        if not checkpoint:
            return error
        return mistakes.of_checkpoint(error, checkpoint, "--resume" if self._setting("resume") else "--ckpt_path")

    def before_validate(self) -> None:
        """Say what is measured; refuse a checkpoint of another network."""
        verb = self.config["subcommand"]
        checkpoint = self._setting("ckpt_path")
        if checkpoint and Path(checkpoint).is_file():
            self._check_fits(checkpoint, "--ckpt_path")
        elif not checkpoint:
            warn(
                f"{verb} without --ckpt_path measures the network as its settings make it: UNTRAINED, unless they name "
                "weights"
            )

    before_test = before_validate

    def _check_fits(self, checkpoint: str | Path, option: str) -> None:
        """Refuse a checkpoint of another network, or of another order of images, before anything starts.

        What a task makes only once it knows its data or its checkpoint is left to the loading.

        Raises:
            UsageError: It is none, or does not fit.
        """
        content = mistakes.content_of(checkpoint, option)
        there = content["state_dict"]
        lacking = [name for name, _ in self.model.named_parameters() if name not in there]
        for name, here in self.model.state_dict().items():
            if name in lacking or (name in there and there[name].shape != here.shape):
                raise UsageError(
                    f"{checkpoint}: is of another network than the settings make, or not of the same size ({name}): "
                    f"give the settings that it was trained with ({option})"
                )
        if option != "--resume":
            return
        was, now = content.get(SETTINGS_KEY, {}).get("settings", {}), self._setting("data").as_dict()
        for name in ORDER_SETTINGS:
            before, value = (each.get("init_args", {}).get(name) for each in (was.get("data", {}), now))
            if before is not None and before != value:
                raise UsageError(
                    f"{checkpoint}: was trained with data setting {name} {before}, and this is {value}: its place "
                    "among the images would be another; take the same, or begin in another folder (--resume)"
                )


class Parts(TrainingCLI):
    """Makes task, data and trainer, and does nothing with them; takes settings without a verb."""

    def __init__(self, argv: Sequence[str]) -> None:
        super().__init__(argv, run=False)


class _Read(Exception):  # noqa: N818 -- no error
    """The settings are read, and nothing is made of them."""

    def __init__(self, settings: Namespace) -> None:
        self.settings = settings


class Settings(TrainingCLI):
    """Reads the settings and stops there with `_Read`, which has them."""

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse, and go no further."""
        super().parse_arguments(parser, args)
        raise _Read(self.config)


def main(argv: Sequence[str]) -> int:
    """Run `encdl VERB ...`.

    Args:
        argv: The verb (fit, validate or test) and everything after it.

    Returns:
        Exit code: 0, or 143 when terminated.

    Raises:
        KeyboardInterrupt: Someone pressed Ctrl-C.
        EncdlError: A setting, the data or a library is not as it must be; told in one line.
    """
    try:
        with terminable():
            run(argv)
    except Preempted as error:
        return int(str(error.code))
    except KeyboardInterrupt as error:
        return _stopped(error)
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):  # Lightning ends Ctrl-C so
            return _stopped(error.__context__)
        raise
    return 0


def _stopped(error: KeyboardInterrupt) -> int:
    """The exit code of a run that someone stopped, where it does not go on as Ctrl-C.

    One rank says it to whoever started the run: Lightning kills all ranks when one of them that it started ends with
    another code than 0, the first too, which has the run to close.
    """
    if getattr(rank_zero_only, "rank", 0):
        return 0
    if isinstance(error, Terminated):
        print(f"encdl: ended by {error.name}", file=sys.stderr, flush=True)
        return error.code
    raise error


def run(argv: Sequence[str]) -> TrainingCLI:
    """The same, for other commands: gives trainer, task and data of the run that has ended."""
    return _parsed(TrainingCLI, argv)


def check(argv: Sequence[str]) -> Namespace:
    """Only read the settings, and give them.

    Raises:
        EncdlError: One of them is wrong; told in one line.
    """
    try:
        _parsed(Settings, argv)
    except _Read as read:
        return read.settings
    raise AssertionError("settings were read, and more was done")


def task_of(recipe: str) -> LightningModule:
    """The task that a recipe describes, as it is before training; reads no data set.

    Raises:
        EncdlError: A setting is not as it must be.
    """
    # With a logger the run would be entered into MLflow's list.
    settings = ["--config", recipe, "--trainer.logger", "false", "--trainer.enable_progress_bar", "false"]
    task: LightningModule = _parsed(Parts, settings).model
    return task


def _parsed(kind: type[TrainingCLI], argv: Sequence[str]) -> TrainingCLI:
    remarks.leave_out()
    # Lightning uses what jsonargparse will change in its version 5; the dependency stays below that.
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    mistakes.refuse_secrets(argv)
    mistakes.check_recipes(argv)
    class_names.import_offered()
    try:
        return kind(argv)
    except pickle.UnpicklingError:
        raise UsageError("--ckpt_path: it holds more than plain values and tensors: it is not read") from None
    except Exception as error:
        known = mistakes.known_cause(error)
        if known is None and (isinstance(error, MisconfigurationException) or mistakes.raised_by_lightning(error)):
            known = UsageError(mistakes.one_line(error))
        if known is None and type(error).__module__.startswith(("mlflow.", "sqlalchemy.")):
            known = UsageError(f"MLflow could not record the run: {mistakes.one_line(error)[:500]} (trainer.logger)")
        if known is None or known is error:
            raise
        raise known from None
