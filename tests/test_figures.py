"""The README's figures are those of the records that it names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from encdl.codec import Settings
from encdl.damage import DAMAGES
from encdl.evaluation.damaged import kind_of
from encdl.evaluation.table import markdown
from encdl.repair import REPAIRS
from encdl.weights import load

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
READERS = (ROOT / "docs" / "readers.md").read_text()
RECORDS = sorted((ROOT / "experiments" / "results").glob("*.json"))
ROWS = ("plaintext", "decrypt_then_infer", "ciphertext", "wrong_key", "keyless", "fixed_key")
"""Of the tables of readers."""

HARDENED = ("hardened", "hardened_plaintext")
"""Of those tables, where their record has them."""


def metrics(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((ROOT / "experiments" / "results" / f"{name}.json").read_text())[
        "metrics"
    ]
    return content


EVALUATED = {"brain_tumor": "tumour", "acdc": "ACDC", "pneumoniamnist": "pneumonia", "embedded": "MNI152"}
"""Data sets that repair is measured on, and what the tables call them."""

CIPHERS = ("agile", "keystream", "coupled", "thesis")

measured = pytest.mark.skipif(
    not all((ROOT / "experiments" / "results" / f"evaluate-{name}.json").is_file() for name in EVALUATED),
    reason="the ciphers have not been evaluated yet: make evaluate",
)


@measured
@pytest.mark.parametrize("name", EVALUATED)
def test_evaluations_hold_every_cipher_damage_and_repair(name: str) -> None:
    content = json.loads((ROOT / "experiments" / "results" / f"evaluate-{name}.json").read_text())
    assert content["config"] == f"experiments/evaluate-{name}.yaml"
    assert (ROOT / content["config"]).is_file()
    assert len(content["seeds"]) == 3
    assert content["postprocess"] == Settings().postprocess
    assert content["data"]["images"] >= (10 if name == "embedded" else 100)
    assert len(content["data"]["digest"]) == len(content["data"]["validation"]["digest"]) == 32
    assert list(content["metrics"]) == [*CIPHERS, "references"]
    for cipher in CIPHERS:
        assert len(content["weights"][cipher]) == 3
        assert all(
            {"settings", "files", "commit"} <= set(one["training"]) for one in content["weights"][cipher]
        )
        row = content["metrics"][cipher]
        for damage, what in DAMAGES.items():
            assert set(row[damage]) == {"none", "restored", *REPAIRS[kind_of(what)[0]]}
            for entry in row[damage].values():
                assert entry["low"] <= entry["mean"] <= entry["high"]
                assert len(entry["values"]) == 3
            assert all(
                "validation_psnr_db" in choice for choice in content["repairs"][cipher][damage].values()
            )


@measured
def test_pixels_that_were_not_hit_stay_as_they_are() -> None:
    """On the mean of the three real sets, when 1 % of the bytes were hit."""
    real = [name for name in EVALUATED if name != "embedded"]
    assert fmean(metrics(f"evaluate-{name}")["agile"]["unhit_unchanged_fraction"] for name in real) >= 0.999


@measured
@pytest.mark.parametrize("cipher", CIPHERS)
def test_the_tables_of_repair_quote_the_records(cipher: str) -> None:
    page = README + (ROOT / "docs" / "evaluation.md").read_text()
    found = {words: metrics(f"evaluate-{name}") for name, words in EVALUATED.items()}
    for line in markdown(found, cipher).splitlines():
        assert line in page, f"the table of {cipher} should be:\n{markdown(found, cipher)}"


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_every_record_says_how_it_came_about_and_is_quoted(path: Path) -> None:
    record = json.loads(path.read_text())
    assert set(record) >= {
        "name", "task", "config", "dataset", "seeds", "metrics", "wall_s", "device", "versions", "commit", "date",
    }  # fmt: skip
    assert record["name"] == path.stem
    assert record["commit"] != "unknown"
    assert not record["commit"].endswith("+changes")
    pages = [README, *(page.read_text() for page in (ROOT / "docs").glob("*.md"))]
    assert any(path.name in page for page in pages), f"no page quotes {path.name}"


def test_golden_ciphertexts_opened_without_a_differing_pixel() -> None:
    found = metrics("exactness-cuda")
    assert len(found["differing_pixels"]) == 6
    assert all(count == 0 for files in found["differing_pixels"].values() for count in files.values())
    assert set(found["exact_fraction"].values()) == {1.0}
    assert found["worst_case_differing"] == 0


def section_of(text: str) -> str:
    """The section of docs/readers.md with `text` in it."""
    return next(part for part in re.split(r"^#+ ", READERS, flags=re.MULTILINE) if text in part)


def decimals(text: str) -> set[str]:
    return set(re.findall(r"\d+\.\d+", text))


def leaves(content: Any) -> Iterator[float]:
    """Every number of a record."""
    if isinstance(content, dict | list):
        for each in content.values() if isinstance(content, dict) else content:
            yield from leaves(each)
    elif isinstance(content, float):
        yield content


def rounded(content: Any) -> set[str]:
    """Every way in which a record's numbers may be quoted."""
    return {f"{value:.{digits}f}" for value in leaves(content) for digits in (1, 2, 3)}


def beside(values: Iterable[float]) -> str:
    return " | ".join(f"{value:.3f}" for value in values)


def differences(rows: dict[str, Any], figure: str) -> list[float]:
    """What ciphertext lacks to plaintext: in each seed, over all seeds and over the first three."""
    plain, cipher = (rows[row][figure]["values"] for row in ("plaintext", "ciphertext"))
    behind = [p - c for p, c in zip(plain, cipher, strict=True)]
    return [*behind, fmean(behind), fmean(behind[:3])]


@pytest.mark.parametrize(
    ("record", "figures", "floor"),
    [
        ("pneumoniamnist", ("accuracy", "auroc"), "majority_class"),
        ("brain_tumor", ("accuracy", "auroc"), "majority_class"),
        ("acdc", ("dice",), "mean_mask"),
    ],
)
def test_tables_of_readers_quote_their_record(record: str, figures: tuple[str, ...], floor: str) -> None:
    rows, section = metrics(f"readers-{record}"), section_of(f"results/readers-{record}.json")
    main = figures[0]
    hardened = tuple(row for row in HARDENED if row in rows)
    means = {
        row: [rows[row][figure]["mean"] for figure in figures if figure in rows[row]]
        for row in (*ROWS, *hardened, floor)
    }
    for row in (*ROWS, *hardened):
        first, *others = (f"{mean:.3f}" for mean in means[row])
        told = " | ".join([f"{first} ± {rows[row][main]['std']:.3f}", *others])
        assert f"| `{row}` | {told} |" in section
    for name, damage in rows["robustness"].items():
        columns = ("plaintext", "ciphertext", "restore_then_infer", *hardened)
        told = beside(damage[row][main]["mean"] for row in columns)
        assert f"| {name.replace('_', ' ')} | {told} |" in section
    assert f"{means[floor][0]:.3f}" in section
    shown = ("plaintext", "ciphertext", "wrong_key", "keyless", floor)
    assert f" | {beside(means[row][0] for row in shown)} |" in README
    assert decimals(section) <= rounded([rows, differences(rows, main)])


def test_the_seeds_of_tumours_are_told_one_by_one() -> None:
    """The mean alone would hide that ciphertext is behind in most of them."""
    rows, section = metrics("readers-brain_tumor"), section_of("results/readers-brain_tumor.json")
    *seeds, mean, of_three = differences(rows, "accuracy")
    assert (len(seeds), sum(each > 0 for each in seeds)) == (6, 5)
    assert "behind in five of six" in section
    for figure in (mean, max(seeds), of_three):
        assert f"{figure:.3f}" in section


def test_what_is_concluded_of_readers_is_in_their_records() -> None:
    section = section_of("What the three records show")
    records = {name: metrics(f"readers-{name}") for name in ("pneumoniamnist", "acdc", "brain_tumor")}
    _, hearts, tumours = records.values()
    known = rounded(list(records.values()))
    for name, rows in records.items():
        figure = "dice" if name == "acdc" else "accuracy"
        plain, cipher, fixed = (rows[row][figure]["mean"] for row in ("plaintext", "ciphertext", "fixed_key"))
        difference = f"{abs(plain - cipher):.3f}"
        known.add(difference)
        assert f" by {difference}" in section
        assert f"{fixed:.3f} of {plain:.3f}" in section
        assert f"{fixed:.3f}" in README
    assert f"{span([hearts, tumours], 'ciphertext_to_plain', 1)} times" in section
    for rows in (hearts, tumours):
        for row in ("ciphertext", "plaintext", "ciphertext_wrong_key"):
            assert f"{rows['leakage_psnr_db'][row]['stem']['mean']:.1f}" in section
    noisy = ("salt_pepper_1pct", "salt_pepper_5pct", "gaussian_2", "gaussian_8")
    for damage in noisy:
        hardened, restored = (
            tumours["robustness"][damage][row]["accuracy"]["mean"]
            for row in ("hardened", "restore_then_infer")
        )
        assert hardened >= restored
    assert decimals(section) <= known


def test_costs_are_those_of_the_records() -> None:
    section = section_of("Three questions, and what answers them")
    records = [metrics(f"readers-{name}") for name in ("pneumoniamnist", "acdc", "brain_tumor")]
    for ratio in ("keyed_to_plain", "ciphertext_to_plain", "ciphertext_to_decrypt_then_infer"):
        told = " | ".join(span([rows], ratio, 2) for rows in records)
        assert f"| {told} |" in section
    times = [rounded(rows["cost"]) for rows in records]
    assert {"12.2", "18.3", "4.0", "5.4"} <= times[1]
    assert "3.7" in times[2]


def test_costs_from_files_are_those_of_their_record() -> None:
    rows = metrics("readers-cost")
    section = " ".join(section_of("Three questions, and what answers them").split())
    memory = [{"cost": rows["memory"]}]
    assert f"beside the plain one {span(memory, 'keyed_to_plain', 2)};" in section
    assert f"in memory {span(memory, 'ciphertext_to_plain', 2)} times the plain network" in section
    assert f"{span(memory, 'ciphertext_to_decrypt_then_infer', 2)} times decrypting first" in section
    own, wall = (
        [f"{clocks[clock]['ciphertext_to_decrypt_then_infer']:.2f}" for clocks in rows["files"].values()]
        for clock in ("own", "wall")
    )
    assert f"from files **{own[0]} and {own[1]}** of the processor's time" in section
    assert f"{wall[0]} and {wall[1]} of the clock's" in section
    assert max(times["ciphertext_to_plain"] for times in rows["memory"].values()) <= 1.15


def test_the_readme_tells_what_reading_costs() -> None:
    cpu, gpu = ([{"cost": metrics(name)["memory"]}] for name in ("readers-cost", "readers-cost-cuda"))
    text = " ".join(README.split())
    assert (
        f"takes {span(cpu, 'ciphertext_to_plain', 2)} times as long as the plaintext network on a CPU" in text
    )
    assert f"{span(gpu, 'ciphertext_to_plain', 1)} times on an [H200]" in text


def test_costs_on_a_gpu_are_those_of_their_record() -> None:
    rows = metrics("readers-cost-cuda")
    section = " ".join(section_of("Three questions, and what answers them").split())
    memory = [{"cost": rows["memory"]}]
    assert f"takes {span(memory, 'ciphertext_to_plain', 2)} times the plain network, one and 32" in section
    assert f"and {span(memory, 'ciphertext_to_decrypt_then_infer', 2)} times decrypting first ([" in section
    for step, told in {
        "field": "The mask takes {} to {} ms",
        "plain": "the plain network is soon done there ({} to {} ms)",
    }.items():
        times = [found[step] for found in rows["memory"].values()]
        assert told.format(f"{min(times):.1f}", f"{max(times):.1f}") in section
    files = [clocks["wall"]["ciphertext_to_decrypt_then_infer"] for clocks in rows["files"].values()]
    assert f"it is {min(files):.2f} to {max(files):.2f} of decrypting first" in section
    plain = [clocks["wall"]["ciphertext_to_plain"] for clocks in rows["files"].values()]
    assert f"{min(plain):.2f} to {max(plain):.2f} times reading the plain pictures" in section


def span(records: list[dict[str, Any]], ratio: str, digits: int) -> str:
    """Least and greatest ratio of times, over sizes and batches."""
    values = [times[ratio] for rows in records for times in rows["cost"].values()]
    return f"{min(values):.{digits}f} to {max(values):.{digits}f}"


@pytest.mark.parametrize(
    ("record", "wanted", "floor"),
    [
        # What MedMNIST's own ResNet-18 has.
        ("pneumoniamnist", {"accuracy": 0.854, "auroc": 0.944}, ("majority_class", "accuracy")),
        ("acdc", {"dice": 0.85}, ("mean_mask", "dice")),
        ("brain_tumor", {"accuracy": 0.9, "auroc": 0.9}, ("majority_class", "accuracy")),
    ],
)
def test_ciphertext_is_read_as_well_as_plaintext(
    record: str, wanted: dict[str, float], floor: tuple[str, str]
) -> None:
    """Within half a point on the mean over seeds, a plaintext network worth the name, and nothing without the key."""
    rows = metrics(f"readers-{record}")
    for figure, least in wanted.items():
        assert abs(rows["ciphertext"][figure]["mean"] - rows["plaintext"][figure]["mean"]) <= 0.005
        assert rows["plaintext"][figure]["mean"] >= least
    row, figure = floor
    for blind in ("wrong_key", "keyless"):
        assert rows[blind][figure]["mean"] <= rows[row][figure]["mean"]
        if "auroc" in wanted:
            assert abs(rows[blind]["auroc"]["mean"] - 0.5) < 0.05


THROUGHPUT = [path.stem for path in RECORDS if path.stem.startswith("throughput-")]


@pytest.mark.parametrize("record", THROUGHPUT)
def test_the_container_page_quotes_the_throughput(record: str) -> None:
    page = (ROOT / "docs" / "container.md").read_text()
    for name, found in metrics(record)["files"].items():
        rates = found["mb_per_s"]
        told = [
            *(f"{rates[row]:.1f}" for row in ("encdl encrypt", "encdl decrypt")),
            *(f"{found[f'aes_{verb}_to_encdl_{verb}']:.1f}" for verb in ("encrypt", "decrypt")),
            f"{found['share_of_network']:.0%}",
        ]
        assert f"| {name} | {' | '.join(told)} |" in page


def test_the_container_page_tells_of_an_image_in_memory() -> None:
    page = " ".join((ROOT / "docs" / "container.md").read_text().split())
    found = metrics("throughput-cpu")["image_512x512_8bit_cpu"]
    assert f"**{found['encrypt_ms']:.2f} ms** in memory" in page
    assert (
        f"{found['beside']['encrypt_ms']:.1f} ms by EncDL 0.1, {found['beside_to_this']:.0f} times as" in page
    )
    assert found["beside_to_this"] >= 8


def test_the_container_page_tells_what_compiled_code_is_worth() -> None:
    found = metrics("throughput-cpu")["files"].values()
    page = " ".join((ROOT / "docs" / "container.md").read_text().split())
    for step, told in {
        "key planes": "key planes {} times as long",
        "mask network": "the mask network {} times",
        "interleaver": "the interleaver {} times",
        "diffusion": "diffusion {} times",
    }.items():
        ratios = [one["seconds_without_compiled_code"][step] / one["seconds_of_steps"][step] for one in found]
        assert told.format(f"{min(ratios):.0f} to {max(ratios):.0f}") in page
    steps = [one["seconds_of_steps"] for one in found]
    shares = [one["diffusion"] / one["mask network"] for one in steps]
    assert (
        f"diffusion` takes {min(shares):.1f} to {max(shares):.1f} times as long as the mask network" in page
    )


def test_containers_of_cpu_and_gpu_did_not_differ() -> None:
    """What no machine without a GPU can try: the record that `tests.container.across cuda` wrote."""
    record = json.loads((ROOT / "experiments" / "results" / "container-cuda.json").read_text())
    assert record["weights"] == load("default").id
    found = record["metrics"]
    assert list(found["differing_bytes"]) == ["float32", "tf32", "bfloat16", "float16", "benchmark"]
    for cases in found["differing_bytes"].values():
        assert len(cases) >= 12
        assert {count for counts in cases.values() for count in counts.values()} == {0}
    assert set(found["recorded_containers"].values()) == {0}


def test_the_serving_page_quotes_its_record() -> None:
    page = " ".join((ROOT / "docs" / "serving.md").read_text().split())
    found, latency = metrics("serve-cpu"), metrics("serve-cpu")["latency_ms"]
    assert (found["clients"], found["errors"]) == (4, 0)
    assert (
        f"{found['requests']} requests, none refused or lost, {found['requests_per_s']:.0f} a second" in page
    )
    assert f"median {latency['median']:.0f} ms, 99 of 100 within {latency['p99']:.0f} ms" in page
