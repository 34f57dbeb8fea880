"""Errors that a user can mend: one line each, saying what, where and what to do."""

import re


class EncdlError(Exception):
    """Base of every failure that the command line reports as one line with exit code 2."""


class UsageError(EncdlError):
    """An argument or a setting is out of its range, or two of them contradict each other."""


class NoImageError(UsageError):
    """A container holds another file than an image, sealed as it is, and an image was asked for."""


class KeyFileError(EncdlError):
    """A key or grant file is missing, unreadable or not in EncDL's format."""


class WrongKeyError(EncdlError):
    """The key or grant is well formed, and does not open this file."""


class ExpiredGrantError(WrongKeyError):
    """The grant's time is over, by the clock of this machine."""


class ContainerError(EncdlError):
    """A `.encdl` file is of another kind, cut, damaged or tampered with."""


class WeightsError(EncdlError):
    """Cipher weights are missing, unreadable, or not those that the file was made with."""


class ImageFileError(EncdlError):
    """An image cannot be read or written, or holds values that the cipher does not take."""


class DataError(EncdlError):
    """A data set is missing, empty, or not in the layout that was asked for."""


class OutputExistsError(EncdlError):
    """The output file is there already and `--force` was not given."""


def without_secrets(message: str) -> str:
    """`message` without the content of key and grant files, which a library may quote if given one by mistake."""
    return re.sub(r"encdl-(key|grant|locked)-\d+:[\w:=-]*", r"encdl-\1-…", message)


def explain(error: Exception) -> str:
    """One line on what is wrong, where, and what to do."""
    match error:
        case ModuleNotFoundError() if error.name:
            package = error.name.partition(".")[0]
            return f"{package} is not installed, and this verb needs it: pip install {package}"
        case OSError():
            names = " -> ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
            reason = f"{names + ': ' if names else ''}{error.strerror or error}"
            return f"{reason}: nothing was written; check the name, the permissions and the free space"
        case MemoryError():
            return "out of memory: use a smaller image or a larger machine; nothing was written"
    return str(error)
