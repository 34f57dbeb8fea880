"""No keys, passwords or tokens in scripts: they are files that others read, back up and send to help desks."""

from __future__ import annotations

import re

from encdl.utils.errors import UsageError

NAMES = r"token|passw(or)?d|secret|api_?key|access_?key|credential"
SECRETS = {
    r"encdl-(key|grant)-\d+:": "the content of a key or grant file",
    r"[a-z][a-z0-9+.-]*://[^/\s:@'\"]*:[^/\s@'\"]+@": "a password in an address",
    # A reference to a variable or a file is none.
    rf"(?i)\b[a-z0-9_]*({NAMES})[a-z0-9_]*=(?![\"']?\$|\s|$)": "the value of a secret",
    r"(?i)\bauthorization\s*:|\bbearer\s+[\w.~+/-]{8,}": "an authorisation header",
    r"-----BEGIN [A-Z ]*PRIVATE KEY": "a private key",
    r"\b(ghp|gho|ghs|glpat|hf|sk|xox[abp])[_-][A-Za-z0-9_-]{16,}": "a token",
    r"\bAKIA[A-Z0-9]{16}\b|\bdapi[0-9a-f]{32}\b|\beyJ[\w-]{8,}\.[\w-]{8,}\.": "a token",
}
"""Patterns of secrets, and their names; what matches is never quoted in a message."""
HOW_ELSE = (
    "put it where the job itself reads it, such as ~/.mlflow/credentials, or a file that only you can read"
)


def refuse_secrets_in(text: str) -> None:
    """Look through a script.

    Raises:
        UsageError: Something in it looks like a secret; the message does not repeat it.
    """
    for pattern, what in SECRETS.items():
        found = re.search(pattern, text)
        if found:
            line = text.count("\n", 0, found.start()) + 1
            raise UsageError(
                f"line {line} of the script would hold {what}, and others may read it: {HOW_ELSE}"
            )
