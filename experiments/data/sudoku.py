"""Sudokus of exactly one solution: made, kept on disk, and read back.

    python -m experiments.data.sudoku --num_puzzles=20000

- `train`, `val`, `hard`: solved grids, dug as long as one solution is left; or, for
  train and val, the puzzles of a file of one's own (`sudoku_files`).
- `minimal`: published puzzles of 17 givens in random symmetries, with 0 to 17 more of
  their solutions' digits, so that the givens are uniform over 17 to 34 (the harder set
  of arXiv 2406.11179, as made in arXiv 1711.08028).
- `top95`: 95 published hard ones as they stand.

Puzzle i of a set follows from (seed, set, i) alone. No grid of the held-out sets is one
of `train` in another of the game's symmetries.
"""

import concurrent.futures
import hashlib
import io
import os
import random
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
from absl import flags

from experiments import cli
from experiments.data import sudoku_files, sudoku_search
from experiments.data.sudoku_classes import Classes, random_symmetry
from experiments.data.sudoku_files import Rows
from experiments.errors import UserError
from experiments.run.files import write_bytes
from experiments.run.logs import say, track
from ired_jax import fields
from ired_jax.fields import Field

FORMAT = 2  # of the file and of the way puzzles are made: a part of the digest
NAMES = ("train", "val", "hard", "minimal", "top95")
MINIMAL = 17, 34  # givens
CHUNK = 512  # puzzles of one process

Sets = dict[str, Rows]


class Settings(NamedTuple):
    """All that the puzzles follow from."""

    num_puzzles: Annotated[int, Field("puzzles to train on", at_least=1)] = 4_000
    num_held_out: Annotated[
        int, Field("puzzles each of val, hard and minimal", at_least=1)
    ] = 512
    givens_low: Annotated[int, Field("least givens", at_least=22, at_most=80)] = 31
    givens_high: Annotated[int, Field("most givens", at_least=26, at_most=80)] = 42
    hard_low: Annotated[int, Field("of the hard set", at_least=22, at_most=80)] = 22
    hard_high: Annotated[int, Field("of the hard set", at_least=26, at_most=80)] = 28
    data_seed: Annotated[int, Field("of the puzzles, not of a run", at_least=0)] = 0
    train_file: Annotated[
        str,
        Field(
            "puzzles to train on (.txt, .csv, features.pt); empty: made",
            other=str(sudoku_files.HERE / "royle17.txt"),
        ),
    ] = ""
    val_file: Annotated[
        str,
        Field(
            "puzzles of val, as train_file; empty: made",
            other=str(sudoku_files.HERE / "top95.txt"),
        ),
    ] = ""

    @property
    def digest(self) -> str:
        """Of the settings and of what is in the files.

        Raises:
          UserError: a file that cannot be read.
        """
        whole = hashlib.sha256(repr((FORMAT, *self[:-2])).encode())
        for name, path in zip(self._fields[-2:], self[-2:], strict=True):
            try:
                parts = sudoku_files.parts(path) if path else []
                whole.update(b"|" + b"".join(part.read_bytes() for part in parts))
            except (OSError, ValueError) as error:  # a path may hold a 0 byte
                raise UserError(f"data.{name}={path}: {error}") from error
        return whole.hexdigest()[:16]


def load(settings: Settings) -> Sets:
    """The sets, read if they have been made and are whole, else made and kept.

    Returns:
      each of NAMES -> {"puzzle", "solution"}, int8 [N, 9, 9].

    Raises:
      UserError: a setting beyond its limits, or a file without puzzles.
    """
    check(settings)
    path = cache_path(settings)
    if (sets := _read(path)) is None:
        sets = make(settings)
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_bytes(path, _as_bytes(sets))
        except (OSError, UserError):
            say(f"{path} cannot be written: the puzzles are made anew each time")
    return sets


def cache_path(settings: Settings) -> Path:
    """$XDG_CACHE_HOME (or ~/.cache) /ired_jax/sudoku-<digest of the settings>.npz."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "ired_jax" / f"sudoku-{settings.digest}.npz"


def check(settings: Settings) -> None:
    """Raises UserError where no puzzles can be made so."""
    for field in fields.declared(Settings):
        value = getattr(settings, field.parameter)
        try:
            fields.check(f"data.{field.parameter}", value, field.kind, field.spec)
        except ValueError as error:
            raise UserError(str(error)) from error
    for low, high in (("givens_low", "givens_high"), ("hard_low", "hard_high")):
        least, most = getattr(settings, low), getattr(settings, high)
        if least > most:
            raise UserError(f"data.{low}={least}: must be at most data.{high}={most}")


def make(settings: Settings) -> Sets:
    """Makes the sets, whatever is on disk.

    Raises:
      UserError: a file that holds no puzzles, or none but those of held-out sets.
    """
    sets, usual = {}, (settings.givens_low, settings.givens_high)
    hard = settings.hard_low, settings.hard_high
    sets["minimal"] = _filled_up(sudoku_files.published("royle17"), settings)
    sets["top95"] = sudoku_files.published("top95")
    taken = Classes()
    for rows in sets.values():
        taken.add(rows["solution"])
    if settings.val_file:
        sets["val"] = _of_file(settings, "val_file")
        taken.add(sets["val"]["solution"])
    if settings.train_file:
        rows = _of_file(settings, "train_file")
        sets["train"] = _others(rows, taken)
        left_out = len(rows["puzzle"]) - len(sets["train"]["puzzle"])
        if not len(sets["train"]["puzzle"]):
            raise UserError(
                f"data.train_file={settings.train_file}: all its boards are held out"
            )
        if left_out:
            say(f"{settings.train_file}: {left_out} boards are held out, left out")
    for name, size, givens in (
        ("train", settings.num_puzzles, usual),
        ("val", settings.num_held_out, usual),
        ("hard", settings.num_held_out, hard),
    ):
        if name not in sets:
            stream = f"{settings.data_seed} {name}"
            sets[name] = _made(stream, size, givens, taken)
        taken.add(sets[name]["solution"])
    return {name: sets[name] for name in NAMES}


def _of_file(settings: Settings, name: str) -> Rows:
    """The puzzles of a file of one's own; an error names the field too."""
    try:
        return sudoku_files.read(getattr(settings, name))
    except UserError as error:
        raise UserError(f"data.{name}={error}") from error


def _others(rows: Rows, taken: Classes) -> Rows:
    is_other = ~taken.hold(rows["solution"])
    return {part: boards[is_other] for part, boards in rows.items()}


def _made(stream: str, size: int, givens: tuple[int, int], taken: Classes) -> Rows:
    """The first `size` puzzles of a stream whose grids are not taken."""
    parts, first, missing = [], 0, size
    while missing:
        for lines in _lines(stream, givens, first, missing):
            rows = dict(zip(("puzzle", "solution"), lines, strict=True))
            parts.append(_others(rows, taken))
        first += missing
        missing = size - sum(len(part["puzzle"]) for part in parts)
    return {
        name: np.concatenate([part[name] for part in parts])
        for name in ("puzzle", "solution")
    }


def _lines(
    stream: str, givens: tuple[int, int], first: int, count: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Puzzles and solutions [N, 9, 9] of a stream, many by as many processes as cores.

    The processes know of nothing but `sudoku_search`: they start in no time, and
    nothing of this one, with its devices and threads, is copied.
    """
    if count < CHUNK:
        made = [
            sudoku_search.make_puzzle(stream, givens, first + i) for i in range(count)
        ]
        puzzles, answers = zip(*made, strict=True)
        yield tuple(
            np.reshape(b, (-1, 9, 9)).astype(np.int8) for b in (puzzles, answers)
        )
        return

    def one(at: int) -> list[str]:
        numbers = *givens, at, min(CHUNK, first + count - at)
        command = [sys.executable, "-I", sudoku_search.__file__, stream]
        command += map(str, numbers)
        return subprocess.run(
            command, check=True, capture_output=True, text=True
        ).stdout.split()

    pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count())
    try:
        work = [pool.submit(one, at) for at in range(first, first + count, CHUNK)]
        for part in track(work, f"sudokus: {stream.split()[-1]}"):
            words = part.result()
            yield sudoku_files.digits(words[::2]), sudoku_files.digits(words[1::2])
    finally:
        pool.shutdown(cancel_futures=True)


def _filled_up(seeds: Rows, settings: Settings) -> Rows:
    """Puzzles of 17 givens in other symmetries, with digits of their solutions."""
    made = []
    for index in range(settings.num_held_out):
        draws = random.Random(f"{settings.data_seed} minimal {index}")
        row, move = draws.randrange(len(seeds["puzzle"])), random_symmetry(draws)
        puzzle, answer = (move(seeds[part][row]) for part in ("puzzle", "solution"))
        empty = np.argwhere(puzzle == 0).tolist()
        for cell in draws.sample(empty, draws.randint(0, MINIMAL[1] - MINIMAL[0])):
            puzzle[tuple(cell)] = answer[tuple(cell)]
        made.append((puzzle, answer))
    return {k: np.stack(v) for k, v in zip(seeds, zip(*made, strict=True), strict=True)}


def _as_bytes(sets: Sets) -> bytes:
    arrays = {f"{name}/{k}": v for name, part in sets.items() for k, v in part.items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # each member with a checksum of its own
    return buffer.getvalue()


def _read(path: Path) -> Sets | None:
    """The sets of a file; None where there is none or it is damaged."""
    try:
        # From memory: NumPy leaves a damaged file open.
        content = io.BytesIO(path.read_bytes())
        with np.load(content, allow_pickle=False) as file:
            return {
                name: {part: file[f"{name}/{part}"] for part in ("puzzle", "solution")}
                for name in NAMES
            }
    except FileNotFoundError:
        return None
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error):
        say(f"{path} is damaged: its puzzles are made anew")
        return None


def define(values: flags.FlagValues) -> None:
    for field in fields.declared(Settings):
        define_one = flags.DEFINE_integer if field.kind is int else flags.DEFINE_string
        meaning = field.spec.meaning
        define_one(field.parameter, field.default, meaning, flag_values=values)


def main(argv: list[str]) -> None:
    values = cli.parse(argv, define)
    settings = Settings(*(values[name].value for name in Settings._fields))
    sets = load(settings)
    for name, part in sets.items():
        givens = (part["puzzle"] > 0).sum((1, 2))
        say(f"{name}: {len(givens)} puzzles of {givens.min()} to {givens.max()} givens")
    say(str(cache_path(settings)))


if __name__ == "__main__":
    cli.run(main)
