"""One party of a two-party reading, as a program for the environment of SPU: `python -I engine.py < JOB > ANSWER`.

It imports nothing of EncDL. A job is an archive of numpy: `job`, a JSON text, and the party's own arrays. The host
(rank 0) has `ciphertext` and the weights, the key server (rank 1) has `mask`. Each array is split into two shares,
uniform each by itself, of which the other party gets one. All from unmasking to the logits is computed on shares, by
the Cheetah protocol (Huang, Lu, Hong and Ding, USENIX Security 2022): safe against a party that follows the protocol
and keeps what it sees, without triples from anybody whom both would have to trust. Then the key server sends its share
of the logits, and of nothing else, to the host.
"""

from __future__ import annotations

import io
import json
import os
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

FRACTION_BITS = 18
"""Of fixed-point numbers in Z_2^64."""
RECEIVE_MS = 120_000
"""How long a party waits for the other: the first oblivious transfers take ten seconds on a busy machine."""
CONNECT_TRIES, CONNECT_MS = 120, 500
_LENGTH = struct.Struct("<Q")


def main() -> None:
    """Read a job, take part, and, as the host, write the logits with times and bytes."""
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever the libraries print goes to stderr
    import numpy as np  # noqa: PLC0415

    with np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False) as archive:
        own = {name: archive[name] for name in archive.files}
    job = json.loads(bytes(own.pop("job")))
    logits, told = _take_part(job, own)
    if job["rank"] == 0:
        content = io.BytesIO()
        np.savez(content, logits=logits, told=np.frombuffer(json.dumps(told).encode(), np.uint8))
        answer.write(content.getvalue())
        answer.flush()


def _take_part(job: dict[str, Any], own: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    from spu import api, libspu  # noqa: PLC0415

    rank = job["rank"]
    config = libspu.RuntimeConfig(protocol=libspu.ProtocolKind.CHEETAH, field=libspu.FieldType.FM64)
    config.fxp_fraction_bits = FRACTION_BITS
    shapes = _shapes(job)
    executable = _compiled(job, shapes)
    link = _linked(job)
    runtime, sharing = api.Runtime(link, config), api.Io(2, config)
    logits, seconds, moved = None, [], []
    for _ in range(job["repeats"]):
        link.barrier()
        started, before = time.perf_counter(), _written()
        for name, (owner, shape, kind) in shapes.items():
            if owner == rank:
                shares = sharing.make_shares(own[name].astype(kind).reshape(shape), libspu.Visibility.VIS_SECRET)
                link.send(1 - rank, _packed(shares[1 - rank]))
                runtime.set_var(name, shares[rank])
            else:
                runtime.set_var(name, _unpacked(link.recv(owner)))
        runtime.run(executable)
        result = runtime.get_var("logits")
        if rank == 1:
            link.send(0, _packed(result))
        else:
            logits = sharing.reconstruct([result, _unpacked(link.recv(1))])
        seconds.append(time.perf_counter() - started)
        moved.append(_written() - before)
    link.barrier()
    link.stop_link()
    return logits, {"seconds": seconds, "bytes": moved}


def _written() -> int:
    """Bytes that this process has read and written, which between two jobs' ends is what went over the link."""
    with open("/proc/self/io", encoding="ascii") as file:
        counts = dict(line.split(": ") for line in file)
    return int(counts["rchar"]) + int(counts["wchar"])


def _linked(job: dict[str, Any]) -> Any:
    from spu import libspu  # noqa: PLC0415

    desc = libspu.link.Desc()
    desc.recv_timeout_ms = RECEIVE_MS
    desc.connect_retry_times, desc.connect_retry_interval_ms = CONNECT_TRIES, CONNECT_MS
    for name, address in zip(("host", "keyserver"), job["addresses"], strict=True):
        desc.add_party(name, address)
    return libspu.link.create_brpc(desc, job["rank"])


def _shapes(job: dict[str, Any]) -> dict[str, tuple[int, tuple[int, ...], str]]:
    """All inputs in order, the same for both parties: who gives it, its shape and type."""
    channels, height, width = job["shape"]
    images = (job["images"], height, width, channels)
    found: dict[str, tuple[int, tuple[int, ...], str]] = {
        "ciphertext": (0, images, "int64"),
        "mask": (1, images, "int64"),
    }
    for number, (before, after) in enumerate(zip([channels, *job["widths"]], job["widths"], strict=False)):
        found[f"kernel{number}"] = (0, (3, 3, before, after), "float32")
        found[f"bias{number}"] = (0, (after,), "float32")
    found["kernel"] = (0, (job["widths"][-1], job["classes"]), "float32")
    found["bias"] = (0, (job["classes"],), "float32")
    return found


def reading(job: dict[str, Any], names: list[str]) -> Callable[..., Any]:
    """The function of all inputs that is computed: unmask, network, logits (B, classes)."""
    import jax  # noqa: PLC0415
    import jax.numpy as jnp  # noqa: PLC0415

    layout = ("NHWC", "HWIO", "NHWC")

    def network(*values: Any) -> Any:
        given = dict(zip(names, values, strict=True))
        # Words are below 2^32 and the shares' ring is Z_2^64, so their difference has a sign, which says if it wrapped.
        difference = given["ciphertext"] - given["mask"]
        levels = difference + jnp.where(difference < 0, 1 << job["bits"], 0)
        features = levels.astype(jnp.float32) / float((1 << job["level_bits"]) - 1) - 0.5
        features = features.astype(jnp.float32)
        for number in range(len(job["widths"])):
            kernel, bias = given[f"kernel{number}"], given[f"bias{number}"]
            sums = jax.lax.conv_general_dilated(features, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=layout)
            features = jnp.maximum(sums + bias, 0)
        return jnp.mean(features, axis=(1, 2)) @ given["kernel"] + given["bias"]

    return network


def _compiled(job: dict[str, Any], shapes: dict[str, tuple[int, tuple[int, ...], str]]) -> Any:
    import jax  # noqa: PLC0415
    from spu import libspu  # noqa: PLC0415
    from spu.utils import frontend  # noqa: PLC0415

    jax.config.update("jax_enable_x64", True)
    names = list(shapes)
    arguments = [jax.ShapeDtypeStruct(shape, kind) for _, shape, kind in shapes.values()]
    secret = [libspu.Visibility.VIS_SECRET] * len(names)
    executable, _ = frontend.compile(
        frontend.Kind.JAX, reading(job, names), arguments, {}, names, secret, lambda flat: ["logits"]
    )
    return executable


def _packed(share: Any) -> bytes:
    parts = [bytes(share.meta), *map(bytes, share.share_chunks)]
    return b"".join(_LENGTH.pack(len(part)) + part for part in parts)


def _unpacked(data: Any) -> Any:
    from spu import libspu  # noqa: PLC0415

    rest, parts = memoryview(bytes(data)), []
    while rest:
        end = _LENGTH.size + _LENGTH.unpack_from(rest)[0]
        parts.append(bytes(rest[_LENGTH.size : end]))
        rest = rest[end:]
    share = libspu.Share()
    share.meta, share.share_chunks = parts[0], parts[1:]
    return share


if __name__ == "__main__":
    main()
