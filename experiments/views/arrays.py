"""Arrays of .npy files: read as they stand there, or one sentence; written whole."""

import io
import tokenize
import warnings
import zipfile
from pathlib import Path

import numpy as np

from experiments.errors import UserError
from experiments.run.files import write_bytes
from experiments.views.base import reading

# What NumPy raises of a file that is cut, flipped, or says that it is huge.
UNREADABLE = (OSError, ValueError, EOFError, MemoryError, OverflowError, TypeError)
UNREADABLE += (SyntaxError, tokenize.TokenError, zipfile.BadZipFile)


def read_npy(path: str, kinds: str = "fiu") -> np.ndarray:
    """The one array of a .npy file.

    Args:
      path: of the file.
      kinds: of dtypes that are allowed, as NumPy's `dtype.kind`.

    Raises:
      UserError: no such file, not readable, several arrays, or of other dtypes.
    """
    sentence = reading(path, ".npy", UNREADABLE)
    with sentence, open(path, "rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of headers by other Pythons
        array = np.load(file, allow_pickle=False)
    if not isinstance(array, np.ndarray):
        raise UserError(f"--input={path}: holds several arrays, must be one .npy")
    if array.dtype.kind not in kinds:
        raise UserError(
            f"--input={path}: dtype {array.dtype}, must be one array of real numbers"
        )
    return array


def in_float32(array: np.ndarray) -> np.ndarray:
    """What float32 does not hold is infinite, as a check names it: nobody warns."""
    with np.errstate(over="ignore"):
        return array.astype(np.float32)


def write_npy(path: Path | str, array: np.ndarray) -> None:
    """Writes a .npy file whole or not at all."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    write_bytes(Path(path), buffer.getvalue())
