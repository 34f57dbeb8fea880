"""Tables of Markdown from records, and sentences that say what is in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from encdl.audit.evaluation.rows import RESTORED
from encdl.audit.evaluation.table import DAMAGE_WORDS, REPAIR_WORDS
from encdl.audit.results.functional_tables import functional, functional_further, trust_models
from encdl.audit.results.record_values import UNMEASURED, Records, grid, present, set_words, span
from encdl.audit.studies.rows import gaps_of

READERS = (
    "plaintext", "ciphertext", "functional", "wrong_key", "keyless", "fixed_key", "hardened",
    "hardened_plaintext", "mean_mask", "majority_class",
)  # fmt: skip
"""Rows of the tables of readers, where a record has them."""

DAMAGED = {
    "plaintext": "the same damage of the image",
    "decrypt_then_infer": "decrypted, then read",
    "restore_then_infer": "restored, then read",
}
"""Columns of the tables of readers after damage."""

FIGURES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "auroc": "AUROC",
    "ece": "ECE",
    "dice": "mean Dice",
    "hd95_px": "HD95, pixels",
}
"""Figures of readers, and their words."""

STATISTICS = {
    "entropy_bits": ("entropy, bits", ".4f"),
    "local_entropy_bits": ("local entropy, bits", ".4f"),
    "chi2_pass_pct": ("χ² passes, %", ".0f"),
    "adjacent_correlation": ("correlation", ".4f"),
    "npcr_pct": ("NPCR, %", ".2f"),
    "uaci_pct": ("UACI, %", ".2f"),
    "psnr_db": ("PSNR, dB", ".1f"),
    "ssim": ("SSIM", ".3f"),
}
"""Columns of the table of statistics, and their forms."""

REFERENCE_WORDS = {
    "repeated_key_xor": "a repeated key",
    "fixed_xor": "a fixed XOR",
    "lanes_logistic": "the chaotic map alone, 16-bit words",
    "block_scrambling": "block scrambling",
}


def repair(records: Records, names: Sequence[str], row: str) -> str:
    """PSNR after each damage: the network's and, in brackets, the best classical repair's; the better one is bold."""
    counted = {"better": 0, "as good": 0, "worse": 0}

    def cell(found: Mapping[str, Any], paired: Mapping[str, Any]) -> str:
        best, verdict = paired["best_classical"], _verdict(paired)
        restored, classical = (f"{found[key]['mean']:.1f}" for key in (RESTORED, best))
        counted[verdict] += 1
        restored = f"**{restored}**" if verdict == "better" else restored
        classical = f"**{classical}**" if verdict == "worse" else classical
        return f"{restored} ({classical} {REPAIR_WORDS[best]})"

    table = _by_damage(records, names, row, f"`{row}`, dB", cell)
    told = ", ".join(f"{verdict} in {count}" for verdict, count in counted.items())
    return f"{table}\n\nBy the 95 % interval of the difference the network is {told} of {sum(counted.values())} cells."


def _verdict(paired: Mapping[str, Any]) -> str:
    low, high = (paired[end] if paired[end] is not None else paired["mean"] for end in ("low", "high"))
    return "better" if low > 0 else "worse" if high < 0 else "as good"


def differences(records: Records, names: Sequence[str], row: str) -> str:
    """The network less the best classical repair in each cell, with 95 % intervals."""

    def cell(found: Mapping[str, Any], paired: Mapping[str, Any]) -> str:
        ends = "" if paired["low"] is None else f" [{paired['low']:+.1f}, {paired['high']:+.1f}]"
        return f"{paired['mean']:+.1f}{ends}"

    return _by_damage(records, names, row, f"`{row}`, restored less best classical, dB", cell)


def _by_damage(records: Records, names: Sequence[str], row: str, head: str, cell: Callable[..., str]) -> str:
    """A line for each damage, a column for each evaluation; `cell` gets a cipher's figures, and its paired ones."""
    rows = {name: found["metrics"][row] for name, found in present(records, names).items()}
    lines = [
        [
            words,
            *(cell(rows[name][damage], rows[name]["paired"][damage]) if name in rows else UNMEASURED for name in names),
        ]
        for damage, words in DAMAGE_WORDS.items()
    ]
    return grid([head, *map(set_words, names)], lines)


def readers(records: Records, names: Sequence[str]) -> str:
    """One study of readers: each row's figures over seeds, and how far ciphertext is from plaintext."""
    [name] = names
    metrics = records[name]["metrics"]
    main, *others = _figures(metrics)
    lines = []
    for row in READERS:
        if row not in metrics:
            continue
        entry = metrics[row][main]
        more = [f"{metrics[row][other]['mean']:.3f}" if other in metrics[row] else "-" for other in others]
        lines.append([f"`{row}`", f"{entry['mean']:.3f} ± {entry['std']:.3f}", *more])
    plain = metrics["plaintext"][main]["values"]
    shown = grid([f"{len(plain)} seeds", FIGURES[main], *map(FIGURES.__getitem__, others)], lines)
    for row, over, gap in gaps_of(metrics):
        ends = f" ({gap['low']:+.3f} to {gap['high']:+.3f})" if gap["low"] is not None else ""
        shown += f"\n\n`{row}` less plaintext, over {over}: {gap['mean']:+.3f}{ends}."
    if "ciphertext" not in metrics:  # a study with tuned networks: that ciphertext is read alike is a test
        return shown
    behind = [cipher - each for cipher, each in zip(metrics["ciphertext"][main]["values"], plain, strict=True)]
    each = ", ".join(f"{value:+.3f}" for value in behind)
    return f"{shown}\n\nCiphertext less plaintext: {sum(behind) / len(behind):+.3f}; seed by seed {each}."


def _figures(metrics: Mapping[str, Any]) -> list[str]:
    """The main figure first."""
    return [figure for figure in FIGURES if figure in metrics["plaintext"]]


def readers_damaged(records: Records, names: Sequence[str]) -> str:
    """One study of readers: the main figure after each damage."""
    [name] = names
    metrics = records[name]["metrics"]
    main = _figures(metrics)[0]
    columns = [column for column in DAMAGED if all(column in row for row in metrics["robustness"].values())]
    lines = [
        [DAMAGE_WORDS[damage], *(f"{rows[each][main]['mean']:.3f}" for each in columns)]
        for damage, rows in metrics["robustness"].items()
    ]
    return grid([f"{FIGURES[main]} after", *(DAMAGED[column] for column in columns)], lines)


def readers_summary(records: Records, names: Sequence[str]) -> str:
    """Several studies of readers, one line each."""
    columns = ("plaintext", "functional")
    lines = []
    for name in names:
        found = present(records, [name])[name]
        metrics = found["metrics"]
        main = _figures(metrics)[0]
        floor = "majority_class" if "majority_class" in metrics else "mean_mask"
        figures = [f"{metrics[row][main]['mean']:.3f}" if row in metrics else "-" for row in (*columns, floor)]
        lines.append([f"{set_words(name)}, {FIGURES[main]}", *figures])
    return grid(["", "plaintext", "functional key", "no image"], lines)


def reader_costs(records: Records, names: Sequence[str]) -> str:
    """Ratios of times over sizes and batches, least to greatest."""
    ratios = {
        "keyed_to_plain": "keyed network, beside the plain one",
        "ciphertext_to_plain": "with key planes and mask, beside the plain one",
        "ciphertext_to_decrypt_then_infer": "with key planes and mask, beside decrypting first",
        "functional_to_plain": "host by a functional key, beside the plain one",
    }
    found = present(records, names)
    times = {}
    for name, record in found.items():
        device = record["device"].removeprefix("NVIDIA ").split(" (")[0]
        column = f"{set_words(name)}, {device}" if set_words(name) != name else device
        times[column] = record["metrics"].get("cost") or record["metrics"]["memory"]
    lines = [
        [words, *(_span_of(ratio, each) for each in times.values())]
        for ratio, words in ratios.items()
        if any(ratio in one for each in times.values() for one in each.values())
    ]
    return grid(["times as long", *times], lines)


def _span_of(ratio: str, times: Mapping[str, Mapping[str, Any]]) -> str:
    """Of older records not all ratios are known."""
    known = [one[ratio] for one in times.values() if ratio in one]
    return span(known, ".2f") if known else "-"


def attacks(records: Records, names: Sequence[str]) -> str:
    """An audit: each attack on the default mode beside what it knows without ciphertext, and what it breaks."""
    [name] = names
    record = records[name]
    findings = record["metrics"]["attacks"]
    lines = []
    for attack in dict.fromkeys(each["name"] for each in findings):
        own = [each for each in findings if each["name"] == attack]
        default = [each for each in own if (each["role"], each["mode"]) == ("audited", "default")]
        if not default:
            continue
        broken = [each for each in own if each["role"] == "reference" and each["broken"]]
        modes = [each["mode"] for each in own if each["role"] == "audited" and each["broken"] and each not in default]
        breaks = "; ".join(
            f"{REFERENCE_WORDS.get(each['target'], each['target'])} {_score(each)}" for each in broken[:1]
        )
        lines.append(
            [
                f"`{attack}`" + (" (reported only)" if default[0]["advisory"] else ""),
                _score(default[0], "baseline"),
                _score(default[0]) + (" (broken)" if default[0]["broken"] else ""),
                "; ".join([breaks, *(f"`{mode}`" for mode in modes)]),
            ]
        )
    met = sum(check["met"] for check in record["checks"])
    verdict = "passed" if record["passed"] else "FAILED"
    head = ["attack", "without ciphertext", f"`{record['cipher']}`, default", "it breaks"]
    return (
        f"{grid(head, lines)}\n\n"
        f"{verdict.capitalize() if record['passed'] else verdict}: {met} of {len(record['checks'])} checks met; "
        f"{len(record['metrics']['attacks'])} findings, budget `{record['settings']['budget']}`, {record['dataset']}, "
        f"{record['wall_s']:.0f} s on {record['device'].removeprefix('NVIDIA ')}."
    )


def _score(finding: Mapping[str, Any], field: str = "score") -> str:
    unit = {"dB": " dB"}.get(finding["unit"], "")
    return f"{finding[field]:.1f}{unit}" if unit else f"{finding[field]:.2f}"


def statistics(records: Records, names: Sequence[str]) -> str:
    """An audit's statistics of ciphertexts, a line for each way of encrypting."""
    [name] = names
    rows = records[name]["metrics"]["rows"]
    lines = [
        [f"`{row}`", *(f"{found[key]:{form}}" for key, (_, form) in STATISTICS.items())] for row, found in rows.items()
    ]
    return grid(["", *(words for words, _ in STATISTICS.values())], lines)


def throughput(records: Records, names: Sequence[str]) -> str:
    """Whole files from disk to disk beside AES-256-GCM."""
    [name] = names
    lines = []
    for files, found in records[name]["metrics"]["files"].items():
        rates = [f"{found['mb_per_s'][f'encdl {verb}']:.1f}" for verb in ("encrypt", "decrypt")]
        times = [f"{found[f'aes_{verb}_to_encdl_{verb}']:.1f}" for verb in ("encrypt", "decrypt")]
        lines.append([files, *rates, *times, f"{found['share_of_network']:.0%}"])
    head = ["files", "encrypt, MB/s", "decrypt, MB/s", "AES-256-GCM encrypts, times as fast", "decrypts"]
    return grid([*head, "share of the mask network in encryption"], lines)


def steps(records: Records, names: Sequence[str]) -> str:
    """Seconds of each step of encryption as shares, and how many times as long it takes without compiled code."""
    [name] = names
    files = records[name]["metrics"]["files"]
    lines = []
    for step in next(iter(files.values()))["seconds_of_steps"]:
        cells = []
        for found in files.values():
            compiled, plain = (found[key].get(step) for key in ("seconds_of_steps", "seconds_without_compiled_code"))
            cells += [f"{compiled * 1e3:.2f}", f"{plain / compiled:.0f} times" if plain else "-"]
        lines.append([step, *cells])
    head = [cell for name in files for cell in (f"{name}: ms", "without compiled code")]
    return grid(["step", *head], lines)


def speed(records: Records, names: Sequence[str]) -> str:
    """What the bench says of images in memory, readers and trainings, a column a record."""
    found = [records[name]["metrics"] for name in names]
    reads = [f"{min(read.values()):.2f} to {max(read.values()):.2f}" for read in (m["read_over_plain"] for m in found)]
    memory = [
        [max(rate["encrypt"] for rate in each["bytes_per_s_by_images_of_256px"].values()) for each in found],
        *([each["bytes_per_s_of_cryptography"][name] for each in found] for name in ("AES-256-GCM", "ChaCha20")),
    ]
    told = ["EncDL encrypts images of 256 pixels", "AES-256-GCM, on one core of the CPU", "ChaCha20, on one core"]
    lines = [
        *([f"{name}, GB/s", *(f"{rate / 1e9:.2f}" for rate in row)] for name, row in zip(told, memory, strict=True)),
        ["reading ciphertext, beside the plaintext network", *reads],
        ["a reader's training step, beside plaintext's", *(f"{each['train_step_over_plain']:.2f}" for each in found)],
        ["homomorphic inference", *(_homomorphic(each["homomorphic"]) for each in found)],
    ]
    return grid(["", *(str(records[name]["device"]) for name in names)], lines)


def _homomorphic(found: Any) -> str:
    if isinstance(found, str):
        return found
    return f"{found['seconds']['dense layer, 784 to 10'] * 1e3:.0f} ms a dense layer over 28x28 pixels"


def losses(records: Records, names: Sequence[str]) -> str:
    """The study of losses: PSNR after each damage, mean and deviation over seeds, and the mean over all cells."""
    [name] = names
    metrics = records[name]["metrics"]
    lines = []
    for of_set in next(iter(metrics.values())):
        for loss, sets in metrics.items():
            cells = [sets[of_set]["restored_psnr_db"][damage] for damage in DAMAGE_WORDS]
            lines.append([of_set, f"`{loss}`", *(f"{cell['mean']:.2f} ± {cell['std']:.2f}" for cell in cells)])
    means = {
        loss: [cell["mean"] for of_set in sets.values() for cell in of_set["restored_psnr_db"].values()]
        for loss, sets in metrics.items()
    }
    ordered = sorted(means, key=lambda loss: -sum(means[loss]))
    told = ", ".join(f"`{loss}` {sum(means[loss]) / len(means[loss]):.2f}" for loss in ordered)
    return f"{grid(['set', 'loss', *DAMAGE_WORDS.values()], lines)}\n\nMean over all cells, dB: {told}."


def scaling(records: Records, names: Sequence[str]) -> str:
    """How a training scales over the GPUs of one host."""
    [name] = names
    record = records[name]
    runs, failed = record["metrics"]["runs"], record["metrics"]["failed"]
    times = {f"{kind}_{count}": ratio for kind in ("weak", "strong")
             for count, ratio in record["metrics"][f"{kind}_scaling"].items()}  # fmt: skip
    lines = [
        [
            run,
            f"{found['images_per_s']:,.0f}",
            f"{times[run]:.2f}" if run in times else "",
            f"{found['final_loss']:.2f}",
        ]
        for run, found in runs.items()
    ]
    told = f"\n\nOn {record['settings']['gpus']} {record['device'].removeprefix('NVIDIA ')}"
    told += f"; not measured: {', '.join(failed)} (time ran out)." if failed else "."
    return grid(["run", "images/s", "times one GPU's", "last loss"], lines) + told


TABLES: dict[str, Callable[..., str]] = {
    "repair": repair,
    "differences": differences,
    "readers": readers,
    "readers-damaged": readers_damaged,
    "readers-summary": readers_summary,
    "reader-costs": reader_costs,
    "attacks": attacks,
    "statistics": statistics,
    "throughput": throughput,
    "speed": speed,
    "steps": steps,
    "losses": losses,
    "trust-models": trust_models,
    "functional": functional,
    "functional-further": functional_further,
    "scaling": scaling,
}
"""By the name that blocks give."""
