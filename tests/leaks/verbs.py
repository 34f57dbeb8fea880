"""What a session runs: every verb rightly, many wrongly, and some with a bug in the middle."""

from __future__ import annotations

WORDS = "Q7x!vLm2-tRz9_pKw4+hBn6=yGs8~dFj"
"""The passphrase of locked.key and locked.grant, and the name of the variable that holds it."""

KEYED = ["--key", "k.key"]
LOCKED = ["--key", "locked.key", "--passphrase-env", "WORDS"]
CLASSIFY, SEGMENT = (["--reader", f"{name}.ckpt", "--any-size"] for name in ("classifier", "segmenter"))

RIGHT: list[list[str]] = [
    ["keygen", "k.key"],
    ["keygen", "new.key"],
    ["keygen", "locked.key", "--passphrase-env", "WORDS"],
    ["encrypt", "scan.png", *KEYED, "--study", "S", "--postprocess", "both"],
    ["encrypt", "scan.png", *KEYED, "--nonce", "synthetic", "-o", "plain.encdl", "--map", "chacha20"],
    ["inspect", "scan.encdl"],
    ["inspect", "scan.encdl", "--json"],
    ["decrypt", "scan.encdl", *KEYED, "-o", "back.png"],
    ["decrypt", "scan.encdl", *KEYED, "-o", "salvaged.npy", "--salvage"],
    ["grant", *KEYED, "--study", "S", "-o", "study.grant"],
    ["grant", *KEYED, "--file", "plain.encdl", "-o", "file.grant"],
    ["grant", *LOCKED, "--study", "L", "-o", "locked.grant", "--days", "3"],
    ["passwd", "locked.grant", "--new-passphrase-env", "WORDS"],
    ["keyinfo", "study.grant", "--issuer", "k.key"],
    ["keyinfo", "locked.grant", "--passphrase-env", "WORDS"],
    ["encrypt", "scan.png", *LOCKED, "--study", "L", "-o", "locked.encdl"],
    ["decrypt", "locked.encdl", *LOCKED, "-o", "locked.png"],
    ["decrypt", "scan.encdl", "--key-env", "MY_KEY", "-o", "env.png"],
    ["decrypt", "scan.encdl", "--key", "study.grant", "-o", "study.png"],
    ["decrypt", "plain.encdl", "--key", "file.grant", "-o", "file.png"],
    ["rekey", "scan.encdl", *KEYED, "--new-key", "new.key", "-o", "moved.encdl"],
    ["predict", "scan.encdl", "plain.encdl", *KEYED, *CLASSIFY, "-o", "table.csv"],
    ["predict", "scan.encdl", "--key", "study.grant", *SEGMENT, "-o", "masks", "--overlay"],
    ["predict", "plain.encdl", "--key", "file.grant", *CLASSIFY],
    ["fit", "--config", "tiny.yaml"],
]

WRONG: list[list[str]] = [
    ["keygen", "k.key"],
    ["decrypt", "scan.encdl", "--key", "new.key", "-o", "b.png"],
    ["decrypt", "moved.encdl", *KEYED, "-o", "b.png"],
    ["decrypt", "plain.encdl", "--key", "study.grant", "-o", "b.png"],
    ["decrypt", "scan.encdl", "--key", "file.grant", "-o", "b.png"],
    ["decrypt", "bad.encdl", *KEYED, "-o", "b.png"],
    ["decrypt", "k.key", *KEYED, "-o", "b.png"],
    ["decrypt", "scan.encdl", "--key", "locked.key", "--passphrase-env", "MY_KEY", "-o", "b.png"],
    ["decrypt", "scan.encdl", "--key-env", "WORDS", "-o", "b.png"],
    ["decrypt", "scan.encdl", "--key-env", "CUT_KEY", "-o", "b.png"],
    ["decrypt", "scan.encdl", *LOCKED, "-o", "b.png"],
    ["keyinfo", "locked.grant", "--passphrase-env", "MY_KEY"],
    ["passwd", "new.key", "--passphrase-env", "WORDS", "--new-passphrase-env", "NONE"],
    ["decrypt", "scan.encdl", "--key", "cut.key", "-o", "b.png"],
    ["encrypt", "k.key", *KEYED, "-o", "b.encdl"],
    ["encrypt", "scan.png", "--key", "file.grant", "-o", "b.encdl"],
    ["encrypt", "scan.png", *KEYED, "--weights", "k.key", "-o", "b.encdl"],
    ["grant", "--key", "study.grant", "--study", "T", "-o", "b.grant"],
    ["grant", *KEYED, "--file", "k.key", "-o", "b.grant"],
    ["rekey", "k.key", *KEYED, "--new-key", "new.key"],
    ["inspect", "k.key"],
    ["export", "k.key", "-o", "w.pt"],
    ["evaluate", "--data", "k.key", "--exact-images", "1"],
    ["evaluate", "--weights", "k.key"],
    ["predict", "scan.encdl", "--key", "new.key", *CLASSIFY],
    ["predict", "plain.encdl", "--key", "study.grant", *SEGMENT, "-o", "b.masks"],
    ["predict", "k.key", "bad.encdl", *KEYED, *CLASSIFY],
    ["predict", "scan.encdl", *KEYED, "--reader", "k.key"],
    ["predict", "scan.encdl", *KEYED, *CLASSIFY, "--weights", "k.key"],
    ["predict", "scan.encdl", *KEYED, *CLASSIFY, "-o", "k.key", "--force"],
    ["predict", "scan.encdl", *KEYED, *SEGMENT, "-o", "k.key", "--force"],
    ["predict", "scan.encdl", "--key", "cut.key", *CLASSIFY],
    ["fit", "--config", "tiny.yaml", "--data.init_args", "k.key"],
    ["fit", "--config", "tiny.yaml", "--trainer", "study.grant"],
]

BROKEN: list[tuple[list[str], str]] = [
    (["encrypt", "scan.png", *KEYED, "-o", "b.encdl"], "encdl.ciphers.compiled_ciphers:FixedMask.mask"),
    (["encrypt", "scan.png", *KEYED, "-o", "b.encdl", "--nonce", "synthetic"], "encdl.utils.atomic:os.fsync"),
    (["decrypt", "scan.encdl", *KEYED, "-o", "b.png"], "encdl.ciphers.agile:AgileCipher._decrypt"),
    (["decrypt", "bad.encdl", *KEYED, "-o", "b.png", "--salvage"], "encdl.ciphers.agile:AgileCipher._restored"),
    (["decrypt", "scan.encdl", "--key", "study.grant", "-o", "b.png"], "encdl.files.formats:write"),
    (["rekey", "scan.encdl", *KEYED, "--new-key", "new.key"], "encdl.files.container:ContainerWriter.close"),
    (["grant", *KEYED, "--study", "T", "-o", "b.grant"], "encdl.keys.grant:Grant.save"),
    (["grant", *LOCKED, "--study", "T", "-o", "b.grant"], "encdl.keys.grant:Grant.save"),
    (["passwd", "locked.key", "--passphrase-env", "WORDS", "--remove"], "encdl.keys.key:Key.save"),
    (["keygen", "b.key", "--passphrase-env", "WORDS"], "encdl.keys.key:Key.save"),
    (["predict", "scan.encdl", *KEYED, *CLASSIFY], "encdl.readers:Reader.forward"),
    (["predict", "scan.encdl", *KEYED, *CLASSIFY], "encdl.ciphers.agile:AgileCipher._mask"),
    (["predict", "scan.encdl", *KEYED, *SEGMENT, "-o", "b.masks", "--overlay"], "encdl.files.images:write"),
    (["fit", "--config", "tiny.yaml"], "encdl.training.tasks.encrypt:EncryptTask.training_step"),
]  # fmt: skip

KEY_FILES = {"k.key", "new.key", "study.grant", "file.grant", "locked.key", "locked.grant"}
