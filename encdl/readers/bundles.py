"""MONAI bundles: their inference workflows on encrypted files, and readers written as bundles.

A bundle is code: its configs hold Python expressions, which run as soon as they are read, and its model may be
TorchScript. Run none that you would not run as a program.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from encdl.utils import errors
from encdl.utils.errors import EncdlError, UsageError
from encdl.utils.silence import silenced

WORKFLOWS = ("inference.json", "inference.yaml", "inference.yml")
METADATA = "metadata.json"
LOADERS, SAVERS = ("LoadImage", "LoadImaged", "LoadImageD"), ("SaveImage", "SaveImaged", "SaveImageD")
READER = "encdl_reader"
"""The name under which a config finds what opens encrypted files."""


def run_bundle(
    folder: Path, images: Sequence[Path], image_reader: Any, output: Path, device: str | None = None
) -> None:
    """Run a bundle's inference workflow on other images than its own; all but loading and the output folder is its.

    Args:
        folder: The bundle.
        images: Files, or folders of one series each.
        image_reader: An `ImageReader` of MONAI that opens them; every LoadImage of the configs gets it.
        output: The folder that every SaveImage of the configs writes into, and `output_dir` is set to.
        device: "cpu" or "cuda"; the bundle's own by default.

    Raises:
        UsageError: It is no bundle, its configs name no data set, or its workflow fails.
        EncdlError: What opening a file raised: a wrong key, a damaged file.
    """
    import torch  # noqa: PLC0415

    config = _config_of(folder)
    # Workflows switch gradients off for the whole process, as `monai.bundle run` has one of its own: set back here.
    with silenced(logging.ERROR), torch.set_grad_enabled(torch.is_grad_enabled()):
        try:
            workflow = _prepared(config, folder, images, image_reader, output, device)
            workflow.initialize()
            workflow.run()
            workflow.finalize()
        except Exception as error:  # whatever a bundle does
            raise _told(folder, error) from None


def _config_of(folder: Path) -> Path:
    configs = folder / "configs"
    found = [configs / name for name in WORKFLOWS if (configs / name).is_file()]
    if not folder.exists():
        raise UsageError(f"{folder}: no such folder")
    if not found:
        raise UsageError(f"{folder}: no MONAI bundle with an inference workflow: it has no configs/{WORKFLOWS[0]}")
    if not (configs / METADATA).is_file():
        raise UsageError(f"{folder}: no complete MONAI bundle: it has no configs/{METADATA}")
    return found[0]


def _prepared(
    config: Path, folder: Path, images: Sequence[Path], image_reader: Any, output: Path, device: str | None
) -> Any:
    """The workflow with our loading, our images and our folder."""
    from monai.bundle import ConfigWorkflow  # noqa: PLC0415

    workflow = ConfigWorkflow(
        str(config),
        str(config.with_name(METADATA)),
        logging_file=False,
        workflow_type="inference",
        bundle_root=str(folder.resolve()),
    )
    parser = workflow.parser
    content = parser.get()
    if "data" not in (content.get("dataset") or {}):
        raise UsageError(f"{folder}: configs/{config.name} has no `dataset` with `data`: no images can be given to it")
    loaders = [part for part in _components(content) if str(part["_target_"]).rpartition(".")[2] in LOADERS]
    if not loaders:
        raise UsageError(f"{folder}: configs/{config.name} has no LoadImage transform that could open encrypted files")
    for part in loaders:
        part["reader"] = f"${READER}"
    for part in _components(content):
        if str(part["_target_"]).rpartition(".")[2] in SAVERS:
            part["output_dir"] = str(output)
    if "output_dir" in content:
        content["output_dir"] = str(output)
    if device is not None and "device" in content:
        content["device"] = f"$torch.device('{device}')"
        content.setdefault("imports", []).append("$import torch")
    keys = [key for part in loaders for key in _keys(parser, part.get("keys"))]
    if len(set(keys)) > 1:
        raise UsageError(f"{folder}: its workflow loads {', '.join(keys)}: encrypted files can be one of these alone")
    content["dataset"]["data"] = [{keys[0]: str(path)} if keys else str(path) for path in images]
    parser.set(content)
    parser.globals[READER] = image_reader
    return workflow


def _keys(parser: Any, keys: Any) -> list[str]:
    """The keys of a transform, of which a config may give the id of another entry instead."""
    if isinstance(keys, str) and keys.startswith("@"):
        keys = parser.get(keys[1:].replace("#", "::"))
    return [keys] if isinstance(keys, str) else [str(key) for key in keys or ()]


def _components(content: Any) -> Iterator[dict[str, Any]]:
    """All that a config makes objects of, at any depth."""
    if isinstance(content, dict) and "_target_" in content:
        yield content
    for each in content.values() if isinstance(content, dict) else content if isinstance(content, list) else ():
        yield from _components(each)


def _told(folder: Path, error: Exception) -> EncdlError:
    """One line of what went wrong at the bottom of MONAI's explanations."""
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    for each in chain:
        if isinstance(each, EncdlError):
            return each
    kind, reason = type(chain[-1]).__name__, " ".join(str(chain[-1]).split())
    # Of a process that loads images nothing but the text of a traceback comes back: its first error is at the bottom.
    if worker := re.search(r"^([\w.]+(?:Error|Exception|Interrupt)): (.+)$", str(chain[-1]), re.MULTILINE):
        kind, reason = worker[1].rpartition(".")[2], worker[2]
        own = getattr(errors, kind, None)
        if worker[1].startswith(errors.__name__) and own is not None:
            return own(reason)  # type: ignore[no-any-return]
    if missing := re.search(r"No module named '([\w.]+)'", " ".join(map(str, chain))):
        package = {"ignite": "pytorch-ignite"}.get(missing[1].partition(".")[0], missing[1])
        return UsageError(f"{folder}: its workflow needs {missing[1]}, which is not installed: pip install {package}")
    if any("state_dict" in str(each) for each in chain):
        return UsageError(f"{folder}: the weights do not fit the network of its configs: {reason[:200]}")
    return UsageError(f"{folder}: its workflow failed: {kind}: {reason[:300]}")


def write_bundle(folder: Path, metadata: dict[str, Any], inference: dict[str, Any], model: bytes, readme: str) -> None:
    """Write the files of a bundle into an empty folder: configs, TorchScript and a page."""
    for name in ("configs", "models", "docs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "configs" / METADATA).write_text(json.dumps(metadata, indent=2) + "\n")
    (folder / "configs" / WORKFLOWS[0]).write_text(json.dumps(inference, indent=2) + "\n")
    (folder / "models" / "model.ts").write_bytes(model)
    (folder / "docs" / "README.md").write_text(readme)
