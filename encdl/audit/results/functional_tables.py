"""Tables of what is read without a key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from encdl.audit.results.record_values import Records, grid, present, set_words


def trust_models(records: Records, names: Sequence[str]) -> str:
    """One task under several models of trust, a line each."""
    metrics = records[names[0]]["metrics"]
    lines = [
        [
            f"`{row['model']}`{', k = ' + str(row['numbers']) if row['numbers'] else ''}",
            f"{row['figure']:.3f}",
            f"{row['milliseconds']:,.1f}",
            f"{row['moved'] / 1000:,.1f}",
            f"{row['difference']:.0e}",
            row["host_sees"],
            row["key_server_sees"],
            row["must_be_trusted"],
        ]
        for row in metrics["rows"]
    ]
    head = ["model", metrics["metric"], "ms an image", "kB moved", "logits differ by", "host sees", "key server sees"]
    return grid([*head, "must be trusted"], lines)


def functional(records: Records, names: Sequence[str]) -> str:
    """Readers by functional keys: what they reach, and what the best decoder rebuilds; a line a setting."""
    lines = []
    for name, record in present(records, names).items():
        for row in record["metrics"]["settings"]:
            gap = row["difference"]
            best = max((psnr, decoder) for decoder, psnr in row["decoders"].items())[1]
            lines.append(
                [
                    f"{set_words(name)}, {row['metric']}",
                    _numbers(row),
                    f"{row['functional']['mean']:.3f}",
                    f"{row['plaintext']['mean']:.3f}",
                    f"{gap['mean']:+.3f} ({gap['low']:+.3f}, {gap['high']:+.3f})",
                    f"{row['decoder_psnr_db']:.1f} dB / {row['decoder_ssim']:.2f} ({best})",
                    _within(row),
                    f"{row['thumbnail_psnr_db']:.1f}",
                    f"{row['mean_image_psnr_db']:.1f}",
                ]
            )
    head = ["set, figure", "numbers", "functional key", "plaintext", "difference", "best decoder, PSNR / SSIM"]
    return grid([*head, "within what W sees", "thumbnail of as many numbers, dB", "mean image, dB"], lines)


def functional_further(records: Records, names: Sequence[str]) -> str:
    """What else follows from W x, of each setting's first reader, and what damage does to it."""
    lines = []
    for name, record in present(records, names).items():
        for row in record["metrics"]["settings"]:
            found = row["further"]
            hit = found["damaged"]
            lines.append(
                [
                    set_words(name),
                    _numbers(row),
                    *(f"{found['rebuilt'][each][0]:.1f}" for each in ("prior", "prior_two_readers")),
                    *_beside(found["reidentified"]),
                    *_beside(found["attributes"]["mirrored"]),
                    f"{hit['intact']:.3f}, {hit['run_1pct']:.3f}, {hit['bytes_1pct']:.3f}",
                    f"{found['host_to_plaintext_time']:.2f}",
                ]
            )
    head = [
        "set",
        "numbers",
        "prior, dB",
        "of two readers",
        "re-identified",
        "by pixels",
        "mirrored is told",
        "by pixels",
    ]
    return grid(
        [*head, "figure without parity: intact, 1 % of words in a row, 1 % of bytes", "host's time / plaintext's"],
        lines,
    )


def _numbers(row: Mapping[str, Any]) -> str:
    noise = row["setting"].get("noise")
    return f"{row['numbers']:,}" + (f", noise {noise}" if noise else "")


def _within(row: Mapping[str, Any]) -> str:
    """The region that W sees, and what decoders and the mean image reach there."""
    if not row["setting"].get("region"):
        return "all of it"
    rows, columns = (end - first for first, end in row["setting"]["region"])
    reached, mean = row["region_decoder_psnr_db"], row["region_mean_image_psnr_db"]
    return f"{rows}x{columns} pixels: {reached:.1f} dB, mean image {mean:.1f}"


def _beside(found: Mapping[str, float]) -> list[str]:
    return [f"{found['functional']:.2f}", f"{found['plaintext']:.2f}"]
