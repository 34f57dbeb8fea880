"""`encdl audit`: what it writes, how it ends, and what it refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import mlflow
import numpy as np
import pytest

from encdl.audit.attacks.targets import audit_key, audit_nonce
from encdl.audit.security import run as audit_run
from encdl.cli import main
from encdl.files import images
from tests.audit.security import tiny
from tests.audit.security.test_statistics import PROMISED
from tests.commands.conftest import Run
from tests.stores import make_store

ATTACK_KEYS = ("name", "target", "mode", "score", "baseline", "unit", "broken", "budget")


@dataclass(frozen=True)
class Audited:
    """An audit that was carried out, and what it said."""

    code: int
    folder: Path
    out: str
    err: str

    @property
    def record(self) -> dict[str, Any]:
        def refuse(word: str) -> None:
            raise AssertionError(f"the record holds {word}")

        content: dict[str, Any] = json.loads((self.folder / "audit.json").read_text(), parse_constant=refuse)
        return content

    @property
    def page(self) -> str:
        return (self.folder / "report.html").read_text()


@pytest.fixture(scope="module", autouse=True)
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        tiny.ship(patch, tmp_path_factory.mktemp("weights"))
        tiny.shrink(patch)
        yield patch
    tiny.clear()


def audit(where: Path, capfd: pytest.CaptureFixture[str] | None, *words: str) -> Audited:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(where)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        code = main(["audit", "--quick", "--device", "cpu", "-o", "out", *words])
    out, err = capfd.readouterr() if capfd else ("", "")
    return Audited(code, where / "out", out, err)


@pytest.fixture(scope="module")
def weak(tmp_path_factory: pytest.TempPathFactory) -> Audited:
    where = tmp_path_factory.mktemp("weak")
    make_store(where / "runs")
    return audit(where, None, "--reference", "fixed_xor")


@pytest.fixture(scope="module")
def default(tmp_path_factory: pytest.TempPathFactory) -> Audited:
    return audit(tmp_path_factory.mktemp("default"), None, "--no-tracking")


def test_the_audit_of_a_weak_cipher_fails(weak: Audited) -> None:
    assert weak.code == 1
    assert weak.record["passed"] is False
    unmet = [check["what"] for check in weak.record["checks"] if not check["met"]]
    assert "attack chosen_plaintext learns nothing in the default mode" in unmet
    assert "attack key_plane_recovery learns nothing in the default mode" in unmet
    assert "fresh_nonce: one changed pixel changes all (NPCR)" in unmet
    assert "Failed: " in weak.page
    assert "Passed" not in weak.page


def test_the_attacks_break_it_as_their_reference(weak: Audited) -> None:
    """What fails is the scheme, and not the attacks."""
    met = {check["what"]: check["met"] for check in weak.record["checks"]}
    assert met["attack chosen_plaintext breaks a reference"]
    assert met["attack membership_inference breaks a reference"] is not None


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_the_quick_audit_as_users_run_it(tmp_path: Path, jobs: str) -> None:
    """In a process of its own, with all attacks."""
    import subprocess
    import sys

    words = ["audit", "--reference", "fixed_xor", "--quick", "--no-tracking", "--jobs", jobs, "-o", "out"]
    done = subprocess.run(
        [sys.executable, "-m", "encdl", *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads((tmp_path / "out" / "audit.json").read_text())["passed"] is False


def test_the_record(default: Audited) -> None:
    content = default.record
    assert (content["name"], content["task"], content["cipher"]) == ("audit-agile-quick", "audit", "agile")
    assert {"config", "dataset", "seeds", "wall_s", "device", "versions", "commit", "date"} <= set(content)
    assert content["passed"] is all(check["met"] for check in content["checks"])
    assert default.code == (0 if content["passed"] else 1)
    rows, attacks = content["metrics"]["rows"], content["metrics"]["attacks"]
    assert {"network", "confusion", "diffusion", "synthetic_nonce", "aes_256_ctr", "fixed_xor", "thesis"} <= set(rows)
    for figures in rows.values():
        assert set(PROMISED) <= set(figures)
        assert all(isinstance(figures[name], float) for name in PROMISED)
    for finding in attacks:
        assert set(ATTACK_KEYS) <= set(finding)
        assert isinstance(finding["broken"], bool)
        assert finding["budget"]
    own = [finding for finding in attacks if finding["target"] == "agile"]
    assert {finding["mode"] for finding in own} == {"default"}
    assert {finding["name"] for finding in own} == {kind.name for kind in tiny.ATTACKS.values()}
    assert set(content["metrics"]) == {
        "rows", "attacks", "keystream", "cycles", "keys", "robustness", "timing",
    }  # fmt: skip


def test_the_record_says_what_was_asked_and_of_which_images(default: Audited) -> None:
    content = default.record
    assert content["config"] is None
    assert content["settings"]["budget"] == "quick"
    assert content["settings"]["weights"] == "default"
    assert content["budget"]["side"] == tiny.BUDGET.side
    assert content["data"]["train_images"] == tiny.BUDGET.train
    assert content["data"]["test_images"] == tiny.BUDGET.test
    assert re.fullmatch("[0-9a-f]{32}", content["data"]["digest"])
    assert content["seeds"] == [0]


def test_the_default_mode_stands_and_references_fall(default: Audited) -> None:
    broken = {(each["name"], each["target"]): each["broken"] for each in default.record["metrics"]["attacks"]}
    for name in ("chosen_plaintext", "key_plane_recovery"):
        assert broken[name, "agile"] is False
        assert broken[name, "fixed_xor"] is True


def test_the_keys_and_the_damage(default: Audited) -> None:
    metrics = default.record["metrics"]
    space = metrics["keys"]["space"]
    assert space["default"] == {"master_key_bits": 256, "true_bits": 256}
    sensitivity = metrics["keys"]["sensitivity"]
    assert sensitivity["seed_bit"]["npcr_pct"] > 99
    assert sensitivity["seed_bit"]["psnr_db"] < sensitivity["mean_image_psnr_db"] + 1
    for curves in metrics["robustness"].values():
        for curve in curves.values():
            assert len(curve["strength"]) == len(curve["restored"]) == len(curve["decrypted"])
    assert metrics["timing"]["aes_256_ctr"]["to_aes"] == 1
    assert 0.3 < metrics["cycles"]["logistic"]["slope"] < 0.7


@pytest.mark.parametrize("name", ["weak", "default"])
def test_the_page_needs_nothing_beside_it(name: str, request: pytest.FixtureRequest) -> None:
    page = request.getfixturevalue(name).page
    assert not re.search(r"https?:|//\w|<script|<link|@import|url\(", re.sub(r"base64,[\w+/=]*", "", page))
    sources = re.findall(r'src="([^"]{0,22})', page)
    assert sources
    assert set(sources) == {"data:image/png;base64,"}
    for title in ("Checks", "Attacks", "Ciphertexts", "Statistics"):
        assert f"<h2>{title}</h2>" in page
    for kind in tiny.ATTACKS.values():
        assert kind.name.replace("_", " ") in page


def test_plots_are_images(default: Audited) -> None:
    plots = sorted((default.folder / "plots").glob("*.png"))
    assert {"ciphertexts", "robustness", "attacks-dB", "attacks-AUROC"} == {path.stem for path in plots}
    assert all(cv2.imread(str(path)) is not None for path in plots)


@pytest.mark.parametrize("name", ["weak", "default"])
def test_no_key_material_in_any_file(name: str, request: pytest.FixtureRequest) -> None:
    """The keys of an audit are no secrets, and are treated like ones."""
    folder = request.getfixturevalue(name).folder
    secrets = []
    for owner in range(-1, 3):
        for number in (0, 1, 10**6):
            keys = audit_key(owner).image_keys(audit_nonce(number))
            secrets += [keys.planes, keys.permutation, keys.diffusion]
    files = [path for path in folder.parent.rglob("*") if path.is_file()]
    assert files
    for path in files:
        content = path.read_bytes()
        for secret in secrets:
            assert secret not in content
            assert secret.hex().encode() not in content
        assert b"encdl-key-" not in content


def test_the_run_is_in_mlflow(weak: Audited) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{weak.folder.parent / 'runs' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("audit")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED"
    assert found.data.params["cipher"] == "fixed_xor"
    assert found.data.params["passed"] == "False"
    metrics = found.data.metrics
    assert metrics["attack/chosen_plaintext/fixed_xor/default/broken"] == 1
    assert metrics["row/fixed_xor/npcr_pct"] == pytest.approx(weak.record["metrics"]["rows"]["fixed_xor"]["npcr_pct"])
    stored = {item.path for item in client.list_artifacts(found.info.run_id)}
    assert stored == {"audit.json", "report.html", "plots"}


def test_without_tracking_there_is_no_store(default: Audited) -> None:
    assert {path.name for path in default.folder.parent.iterdir()} == {"out"}
    assert {path.name for path in default.folder.iterdir()} == {"audit.json", "report.html", "plots", "parts"}


def test_a_store_that_cannot_be_opened_is_a_warning(
    tmp_path: Path, weak: Audited, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from encdl.audit.security import audit as command
    from encdl.utils.errors import UsageError

    def refuse(*_: object) -> None:
        raise UsageError("cannot open the MLflow store")

    monkeypatch.setattr("encdl.audit.security.tracking.track", refuse)
    command._track(weak.record, tmp_path)
    assert capfd.readouterr().err == (
        "encdl: warning: the audit is not logged to MLflow: cannot open the MLflow store\n"
    )


@pytest.mark.usefixtures("undrawn")
def test_it_goes_on_where_it_was_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("encdl.utils.records.commit", lambda: "c" * 40)
    kept, count = audit_run.measure, 0

    def ended(*words: Any) -> dict[str, Any]:
        nonlocal count
        count += 1
        if count == 4:
            raise KeyboardInterrupt
        return kept(*words)

    monkeypatch.setattr(audit_run, "measure", ended)
    words = ("--reference", "fixed_xor", "--no-tracking")
    first = audit(tmp_path, capfd, *words)
    assert first.code == 130
    assert not (first.folder / "audit.json").exists()
    second = audit(tmp_path, capfd, *words)
    assert second.code == 1
    assert "\n3 of " in second.err
    assert second.err.count("\n[") == count - 4
    assert "checks are met" in second.out
    assert f"report: {Path('out', 'report.html')}" in second.out


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots take longer than all else in a tiny audit."""
    monkeypatch.setattr("encdl.audit.security.page.draw", lambda *_: {"ciphertexts": b"png"})


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if any work begins."""

    def begun(*_: object, **__: object) -> None:
        raise AssertionError("the work has begun")

    monkeypatch.setattr(audit_run, "measure", begun)


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--weights", "none.pt"], "none.pt"),
        (["--weights", "k.key"], "k.key"),
        (["--data", "none"], "none: no such data: give embedded"),
        (["--data", "empty"], "holds no images"),
        (["--data", "none.npz"], "none.npz"),
        (["--data", "few"], "holds 1 images: training needs 3"),
        (["--data", "medmnist:none"], "none"),
        (["-o", "scan.png"], "scan.png: is a file: give a folder (--output)"),
        (["--jobs", "0"], "--jobs must be at least 1, got 0"),
        (["--jobs", "two"], "invalid int value: 'two'"),
        (["--seed", "-1"], "--seed must be at least 0, got -1"),
        (["--map", "none"], "none"),
        (["--reference", "rot13"], "there are aes_256_ctr, fixed_xor"),
        (["--reference", "fixed_xor", "--weights", "thesis"], "not allowed with"),
        (["--device", "tpu"], "invalid choice: 'tpu'"),
        (["--budget", "cpu"], "not allowed with argument --quick"),
        (["--size", "18"], "--size must be a multiple of 4, got 18"),
        (["--images", "8"], "--images must be at least 64, got 8"),
        (["--attacker-seeds", "0"], "--attacker-seeds must be at least 1, got 0"),
        (["--config", "none.yaml"], "none.yaml: no such file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_refusals(run: Run, folder: Path, words: list[str], message: str) -> None:
    (folder / "empty").mkdir()
    (folder / "few").mkdir()
    images.write(folder / "few" / "a.png", np.zeros((9, 9), np.uint8))
    code, _, err = run("audit", "--quick", "--device", "cpu", "--no-tracking", *words)
    assert code == 2
    assert message in err.splitlines()[-1]


def test_an_unreadable_image(run: Run, folder: Path) -> None:
    (folder / "bad").mkdir()
    for name in "abcd":
        (folder / "bad" / f"{name}.png").write_bytes(b"no image")
    code, _, err = run("audit", "--quick", "--no-tracking", "--reference", "fixed_xor", "--data", "bad")
    assert code == 2
    assert ".png" in err.splitlines()[-1]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((40, 50), np.uint8), ((1, 1), np.uint8), ((300, 280, 3), np.uint8), ((64, 64), np.uint16)],
    ids=str,
)
def test_images_of_ones_own(
    folder: Path, capfd: pytest.CaptureFixture[str], shape: tuple[int, ...], dtype: type
) -> None:
    """Small, a single pixel, colour and 16 bit."""
    (folder / "mine").mkdir()
    random = np.random.default_rng(0)
    for number in range(8):
        image = random.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)
        images.write(folder / "mine" / f"{number}.png", image)
    found = audit(folder, capfd, "--reference", "fixed_xor", "--no-tracking", "--data", "mine")
    assert found.code == 1, found.err
    assert found.record["dataset"] == "mine"
    assert "brighter or darker" in found.record["data"]["labels"]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("name", ["keystream", "coupled", "thesis"])
def test_every_cipher_is_audited_by_one_setting(tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str) -> None:
    found = audit(tmp_path, capfd, "--weights", name, "--no-tracking")
    assert found.record["cipher"] == name
    assert found.code == (0 if found.record["passed"] else 1)
    assert ("thesis" in found.record["metrics"]["rows"]) is (name != "thesis")


@pytest.mark.usefixtures("undrawn")
def test_settings_of_a_file_and_several_seeds(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.yaml").write_text("reference: fixed_xor\nattacker_seeds: 2\nsize: 20\n")
    found = audit(tmp_path, capfd, "--config", "mine.yaml", "--images", "72", "--no-tracking")
    assert found.code == 1, found.err
    content = found.record
    assert content["config"] == "mine.yaml"
    assert content["seeds"] == [0, 1]
    assert (content["budget"]["side"], content["budget"]["train"]) == (20, 72)
    seeds = {each["name"]: each["attacker_seeds"] for each in content["metrics"]["attacks"]}
    assert seeds == {"chosen_plaintext": 1, "key_plane_recovery": 2, "membership_inference": 2}


@pytest.mark.usefixtures("undrawn")
def test_aes_passes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = audit(tmp_path, capfd, "--reference", "aes_256_ctr", "--no-tracking")
    assert [check for check in found.record["checks"] if not check["met"]] == []
    assert found.code == 0


@pytest.mark.usefixtures("undrawn")
def test_colour_is_audited_in_colour(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(0)
    arrays = {
        f"{split}_images": random.integers(0, 256, (6, 40, 40, 3), dtype=np.uint8) for split in ("train", "val", "test")
    }
    np.savez(folder / "colour.npz", **arrays)
    found = audit(folder, capfd, "--reference", "fixed_xor", "--no-tracking", "--data", "colour.npz")
    assert found.code == 1, found.err
    assert found.record["passed"] is False
