"""Input files of every task for the fuzzer: valid ones, damaged ones, and others."""

import io
import json

import numpy as np
from hypothesis import strategies as st

from tests import boards_of

EDGES = np.eye(4, k=1) + np.eye(4, k=-1)
WAY = {"adjacency": EDGES.tolist(), "start": 0, "goal": 3}
TABLE = np.where(np.arange(12).reshape(3, 4) % 5, 0.3, np.nan)
TASKS = ("addition", "completion", "connectivity", "inverse", "path", "sudoku")
NAMES = {"path": ("a.json",), "sudoku": ("a.txt", "a.csv")}
NAMES |= {"completion": ("a.npy", "a.csv")}
DTYPES = ("?", "i1", "u1", "i4", "u8", "i8", "f2", "f4", "f8", ">f8", "c8", "U3", "S2")
DTYPES += ("M8[s]", "m8[s]", "O", "V4")
SIDES = st.integers(0, 5) | st.sampled_from((1, 9, 40))
PIECES = ("NaN", "Infinity", "-1", "1e999", "1.5", "null", "true", "{}", "[]", '"a"')
PIECES += ("99999999999999999999999999", "[[0,1],[1]]", "[" * 2000, "\\ud800", "{", ",")


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def header(shape, dtype="'<f4'", order="False") -> bytes:
    """Of an .npy file whose rows are missing."""
    text = f"{{'descr': {dtype}, 'fortran_order': {order}, 'shape': {shape}, }}\n"
    size = len(text).to_bytes(2, "little")
    return b"\x93NUMPY\x01\x00" + size + text.encode() + b"\0" * 64


def valid(task: str) -> tuple[bytes, ...]:
    """Files that run."""
    line = boards_of.lines(boards_of.sets()["val"]["puzzle"][:2])
    eye = np.eye(3, dtype=np.float32)
    return {
        "addition": (npy(np.stack([eye, eye])), npy(np.zeros((2, 2, 3, 3)))),
        "completion": (npy(TABLE), npy(np.stack([TABLE] * 2)), b"0.1,,0.3\n,0.2,1\n"),
        "connectivity": (npy(EDGES), npy(np.stack([EDGES, EDGES]))),
        "inverse": (npy(eye), npy(np.stack([eye, 2 * eye]))),
        "path": (json.dumps([WAY, WAY]).encode(), json.dumps(WAY).encode()),
        "sudoku": ("\n".join(line).encode(), f"puzzle,solution\n{line[0]},\n".encode()),
    }[task]


@st.composite
def damaged(draw, contents: tuple[bytes, ...]) -> bytes:
    """Cut, flipped, doubled, or with bytes of its own put in."""
    content = bytearray(draw(st.sampled_from(contents)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, max(len(content) - 1, 0)))
        how = draw(st.integers(0, 4))
        if how == 0:
            del content[at:]
        elif how == 1 and content:
            content[at] ^= 1 << draw(st.integers(0, 7))
        elif how == 2:
            content[at:at] = draw(st.binary(max_size=8))
        elif how == 3:
            content += content[at:]
        else:
            piece = draw(st.sampled_from(PIECES)).encode()
            end = at + draw(st.integers(0, 8))
            content[at:end] = piece
    return bytes(content)


@st.composite
def arrays(draw) -> bytes:
    """Of any shape, dtype and values, NaN and infinite ones too."""
    shape = tuple(draw(st.lists(SIDES, max_size=5)))
    if draw(st.booleans()):  # square at the end, as most tasks have it
        side = draw(SIDES)
        shape = (*shape[:1], side, side)
    size = int(np.prod(shape))
    if size > 10_000:
        shape, size = (3, 3), 9
    chance = np.random.default_rng(draw(st.integers(0, 1000)))
    scale = draw(st.sampled_from((0, 1, 1e-30, 1e9, 1e38, 1e300)))
    kind = draw(st.sampled_from(("normal", "01", "same")))
    values = {
        "normal": lambda: scale * chance.normal(size=size),
        "01": lambda: chance.integers(0, 2, size).astype(float),
        "same": lambda: np.full(size, float(scale)),
    }[kind]()
    if size and draw(st.booleans()):
        special = draw(st.sampled_from((np.nan, np.inf, -np.inf, -0.0, 0.5)))
        values[chance.integers(0, size)] = special
    with np.errstate(all="ignore"):
        try:
            array = values.reshape(shape).astype(draw(st.sampled_from(DTYPES)))
        except (TypeError, ValueError):
            array = values.reshape(shape)
    return npy(np.asfortranarray(array) if draw(st.booleans()) else array)


SHAPES = ("(10000000000, 3, 3)", "(-1, 3)", "(2**70,)", "(1000000, 1000000)", "()", "3")
SHAPES += ("(3, 3", "(True, 3)", "(9223372036854775807, 9)", "(0, 0)", "(1.5, 2)")
HEADERS = st.builds(
    header,
    st.sampled_from(SHAPES),
    st.sampled_from(("'<f4'", "'|O'", "'<f99'", "None", "[('a', '<f4')]", "'|V0'")),
    st.sampled_from(("False", "True", "3")),
)
ZIPPED = st.sampled_from((b"PK\x03\x04", b"PK\x05\x06" + b"\0" * 18, b"PK\x03\x04" * 9))


@st.composite
def problems(draw) -> bytes:
    """JSON of shortest paths with other values."""
    odd = st.sampled_from((None, True, -1, 0, 3, 4, 10**30, 1.0, "0", [], [0], {}))
    rows = []
    for _ in range(draw(st.integers(0, 3))):
        problem = dict(WAY)
        for name in draw(st.lists(st.sampled_from(("start", "goal", "adjacency")))):
            problem[name] = draw(odd)
        if draw(st.integers(0, 3)) == 0:
            matrix = st.lists(st.lists(odd, max_size=4), max_size=5)
            problem["adjacency"] = draw(matrix)
        rows.append(problem)
    return json.dumps(
        draw(st.sampled_from((rows, rows[:1] or {}, {"a": rows})))
    ).encode()


@st.composite
def lines(draw) -> bytes:
    """About 81 characters each, or numbers with commas."""
    rows = []
    for _ in range(draw(st.integers(0, 4))):
        board = draw(st.text("0123456789.", min_size=81, max_size=81))
        part = draw(st.text(".12", max_size=3))
        cells = draw(st.lists(st.sampled_from(("1", "", "nan", "inf", "x", "0.5"))))
        kinds = (board, "." * (81 - len(part)) + part, ",".join(cells), "." * 81)
        rows.append(draw(st.sampled_from((*kinds, "²" * 81, "٣" * 81, '"', "\0", ","))))
    end = draw(st.sampled_from(("\n", "\r\n", "\r", "\u2028", ",\n")))
    return end.join(rows).encode()


def of(task: str) -> st.SearchStrategy:
    """(name of the file, its bytes)."""
    whole = valid(task)
    kinds = [st.sampled_from(whole), damaged(whole), damaged(whole), arrays(), HEADERS]
    kinds += [ZIPPED]
    kinds += [st.binary(max_size=40), lines(), problems()]
    kinds += [problems(), damaged(whole)] if task == "path" else []
    kinds += [lines(), lines()] if task in ("sudoku", "completion") else [arrays()]
    return st.tuples(st.sampled_from(NAMES.get(task, ("a.npy",))), st.one_of(kinds))
