"""One way to measure: peers take turns in one process, everything blocked.

A question makes `Peer`s, the harness runs them round robin, so that what disturbs the
machine disturbs all of them, and compares within each round. Compile time is apart, and
the machine's matrix rate takes its turn like any other peer.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax

from ired_jax.precision import PRECISIONS

OUT = Path(__file__).parent / "out"
OURS = "ired_jax"
MATRIX = "matrix"
WIDTH = 512  # of the reference network, and of the matrix product
PRODUCTS = 20  # a call of the matrix peer
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
PACKAGES = ("jax", "jaxlib", "numpy", "torch", "torchebm", "blackjax")


class Peer(NamedTuple):
    """One system doing one piece of work."""

    system: str  # ired_jax, torch_eager, torch_compile, torchebm, blackjax, earlier
    work: str  # peers of one work are compared with each other
    run: Callable[[], Any]  # returns what must be ready when the clock stops
    compile_s: float = 0.0
    flops: float | None = None  # by hand, of the products of one run
    params: dict | None = None  # sizes of this piece of work


class Result(NamedTuple):
    """All rounds of one peer, seconds."""

    peer: Peer
    seconds: tuple[float, ...]
    ours: tuple[float, ...] | None  # our peer's of the same work, round by round
    matrix: tuple[float, ...]  # of one product of the batch

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Interquartile range over the median."""
        if len(self.seconds) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return (high - low) / self.median

    @property
    def ratio(self) -> float | None:
        """How many times longer than ours: the median over rounds."""
        if self.ours is None:
            return None
        pairs = zip(self.seconds, self.ours, strict=True)
        return statistics.median(t / o for t, o in pairs)


def parser(description: str, **defaults) -> argparse.ArgumentParser:
    """The flags of every question; `defaults` override batch_size, n, repeats."""
    flags = argparse.ArgumentParser(description=description)
    flags.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    flags.add_argument("--repeats", type=int, default=7)
    flags.add_argument("--batch_size", type=int, default=2048)
    flags.add_argument("--n", type=int, default=20, help="matrices are n x n")
    flags.add_argument("--seed", type=int, default=0)
    flags.add_argument("--out", type=Path, default=OUT)
    flags.add_argument(
        "--precision",
        choices=("float32", "tf32"),
        default="float32",
        help="of float32 products on a GPU, in JAX and in PyTorch alike",
    )
    flags.add_argument(
        "--clock",
        choices=tuple(CLOCKS),
        default="wall",
        help="cpu: seconds of all threads, for a machine that others use as well",
    )
    flags.add_argument(
        "--quick", action="store_true", help="fewer rounds and works, for make bench"
    )
    flags.set_defaults(**defaults)
    return flags


def some_of(allowed: Iterable[str]) -> Callable[[str], tuple[str, ...]]:
    """The type of a flag that names some of these, with commas between."""
    allowed = tuple(allowed)

    def parse(text: str) -> tuple[str, ...]:
        names = tuple(text.split(","))
        for name in names:
            if name not in allowed:
                raise argparse.ArgumentTypeError(
                    f"{name!r}: allowed are {', '.join(allowed)}"
                )
        return names

    return parse


def start(flags: argparse.Namespace) -> argparse.Namespace:
    """Selects the device, before the first array is made."""
    if flags.repeats < 1 or flags.batch_size < 1 or flags.n < 1:
        raise SystemExit("--repeats, --batch_size and --n must be at least 1")
    if flags.quick:
        flags.repeats = min(flags.repeats, 3)
    jax.config.update("jax_platforms", "cpu" if flags.device == "cpu" else "cuda")
    jax.config.update("jax_default_matmul_precision", PRECISIONS[flags.precision])
    try:
        device = jax.devices()[0]
    except RuntimeError as error:
        raise SystemExit(f"--device={flags.device}: none here ({error})") from error
    flags.device_name = _cpu_name() if flags.device == "cpu" else device.device_kind
    return flags


def torch_device(flags: argparse.Namespace) -> str:
    """The same device for PyTorch, at the same precision of products."""
    import torch

    tf32 = flags.precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.manual_seed(flags.seed)
    return "cpu" if flags.device == "cpu" else "cuda"


def compiled(function: Callable, *args, donate: Iterable[int] = ()) -> tuple:
    """Lowers and compiles for these arguments: (executable, seconds)."""
    begin = time.perf_counter()
    executable = jax.jit(function, donate_argnums=tuple(donate)).lower(*args).compile()
    return executable, time.perf_counter() - begin


def first_call_extra(run: Callable[[], Any]) -> float:
    """Seconds of a first call beyond the second's: compilation where it is lazy."""
    times = [time.perf_counter()]
    for _ in range(2):
        block(run())
        times.append(time.perf_counter())
    return max(0.0, (times[1] - times[0]) - (times[2] - times[1]))


def block(value: Any) -> Any:
    """Waits until every array of `value` is ready, JAX's and PyTorch's."""
    leaves = jax.tree.leaves(value)
    if any(type(leaf).__module__.startswith("torch") for leaf in leaves):
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return value
    return jax.block_until_ready(value)


def matrix_peer(batch_size: int, width: int = WIDTH) -> Peer:
    """PRODUCTS products [batch, width] x [width, width], one after another."""
    key_a, key_w = jax.random.split(jax.random.key(0))
    a = jax.random.normal(key_a, (batch_size, width))
    w = jax.random.normal(key_w, (width, width)) / width**0.5

    def products(a, w):
        return jax.lax.scan(lambda a, _: (a @ w, None), a, length=PRODUCTS)[0]

    run, seconds = compiled(products, a, w)
    flops = PRODUCTS * 2.0 * batch_size * width**2
    return Peer(MATRIX, MATRIX, lambda: run(a, w), seconds, flops)


def measure(peers: list[Peer], flags: argparse.Namespace) -> list[Result]:
    """Runs each peer once to warm up, then all of them in turn, `repeats` times."""
    peers = [matrix_peer(flags.batch_size), *peers]
    for peer in peers:
        block(peer.run())
    seconds, clock = [[] for _ in peers], CLOCKS[flags.clock]
    for _ in range(flags.repeats):
        for peer, row in zip(peers, seconds, strict=True):
            begin = clock()
            block(peer.run())
            row.append(clock() - begin)
    # A peer that appears twice for one work (with other params) is no reference: the
    # first of ours is.
    ours = {}
    for peer, row in zip(peers, seconds, strict=True):
        if peer.system == OURS:
            ours.setdefault(peer.work, tuple(row))
    return [
        Result(peer, tuple(row), ours.get(peer.work), tuple(seconds[0]))
        for peer, row in zip(peers, seconds, strict=True)
    ]


def share_of_matrix_rate(result: Result, flags: argparse.Namespace) -> float | None:
    """Rate of the work's products over the rate of bare ones, median over rounds."""
    if result.peer.flops is None:
        return None
    batch_size = (result.peer.params or {}).get("batch_size", flags.batch_size)
    bare = PRODUCTS * 2.0 * batch_size * WIDTH**2
    pairs = zip(result.seconds, result.matrix, strict=True)
    return statistics.median(result.peer.flops / t * m / bare for t, m in pairs)


def report(question: str, results: list[Result], flags: argparse.Namespace) -> None:
    """Appends the rows, prints the table of ratios and draws the figure."""
    flags.out.mkdir(parents=True, exist_ok=True)
    rows = [_row(question, result, flags) for result in results]
    with (flags.out / f"{question}.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    _print_table(question, results, rows, flags)
    _draw(question, rows, flags.out / f"{question}.png")


def record(question: str, flags: argparse.Namespace, rows: list[dict]) -> None:
    """Appends rows that are no timings (bytes, shares) and prints them."""
    flags.out.mkdir(parents=True, exist_ok=True)
    rows = [_common(question, flags) | row for row in rows]
    with (flags.out / f"{question}.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def _common(question: str, flags: argparse.Namespace) -> dict:
    return {
        "question": question,
        "device": flags.device,
        "device_name": flags.device_name,
        "precision": flags.precision,
        "clock": flags.clock,
        "cores": os.cpu_count(),
        "malloc": os.environ.get("GLIBC_TUNABLES"),  # huge pages or not
        "load": round(os.getloadavg()[0], 2),
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": _versions(),
        "commit": _commit(),
    }


def _row(question: str, result: Result, flags: argparse.Namespace) -> dict:
    peer = result.peer
    params = {"n": flags.n, "batch_size": flags.batch_size, "seed": flags.seed}
    return _common(question, flags) | {
        "work": peer.work,
        "system": peer.system,
        "params": params | (peer.params or {}),
        "repeats": len(result.seconds),
        "median_s": result.median,
        "min_s": min(result.seconds),
        "max_s": max(result.seconds),
        "spread": result.spread,
        "compile_s": peer.compile_s,
        "times_ours": result.ratio,
        "flops": peer.flops,
        "share_of_matrix_rate": share_of_matrix_rate(result, flags),
    }


def _print_table(question, results, rows, flags):
    from rich.console import Console
    from rich.table import Table

    matrix = rows[0]["flops"] / rows[0]["median_s"] / 1e9
    sizes = f"n = {flags.n}, batch {flags.batch_size}, {flags.precision}"
    title = f"{question}: {flags.device_name}, {sizes}; products {matrix:.0f} GFLOP/s"
    table = Table(title=title)
    for name in ("work", "system", "median", "min", "spread", "compile"):
        table.add_column(
            name, justify="left" if name in ("work", "system") else "right"
        )
    table.add_column("times ours", justify="right")
    table.add_column("share of matrix rate", justify="right")
    for result, row in zip(results, rows, strict=True):
        extra = ", ".join(f"{k}={v}" for k, v in (result.peer.params or {}).items())
        table.add_row(
            row["work"] + (f" ({extra})" if extra else ""),
            row["system"],
            _seconds(row["median_s"]),
            _seconds(row["min_s"]),
            f"{100 * row['spread']:.0f} %",
            _seconds(row["compile_s"]) if row["compile_s"] else "-",
            f"{row['times_ours']:.2f}" if row["times_ours"] is not None else "-",
            f"{row['share_of_matrix_rate']:.2f}" if row["flops"] else "-",
        )
    # A fixed width where the output is no terminal, so that nothing is cut.
    console = Console()
    (console if console.is_terminal else Console(width=140)).print(table)


def _draw(question: str, rows: list[dict], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import NullFormatter

    rows = [row for row in rows if row["system"] != MATRIX]
    labels = [_label(row) for row in rows]
    colors = {row["system"]: None for row in rows}
    colors = {name: f"C{i}" for i, name in enumerate(colors)}
    figure, axes = plt.subplots(figsize=(8, 1 + 0.32 * len(rows)), layout="constrained")
    middle = [row["median_s"] for row in rows]
    below = [row["median_s"] - row["min_s"] for row in rows]
    above = [row["max_s"] - row["median_s"] for row in rows]
    positions = range(len(rows))
    axes.barh(
        positions,
        middle,
        xerr=[below, above],
        color=[colors[row["system"]] for row in rows],
        error_kw={"lw": 1},
    )
    axes.set_yticks(positions, labels, fontsize=7)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("seconds: median, bars from the least to the greatest")
    axes.set_title(f"{question}, {rows[0]['device_name']}", fontsize=9)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _label(row: dict) -> str:
    share, ratio = row["share_of_matrix_rate"], row["times_ours"]
    parts = [row["work"], row["system"]]
    own = {k: v for k, v in row["params"].items() if k not in ("batch_size", "seed")}
    parts += [f"{k}={v}" for k, v in own.items() if k != "n"]
    if ratio is not None and row["system"] != OURS:
        parts.append(f"x{ratio:.2f}")
    if share is not None:
        parts.append(f"{share:.2f} of products")
    return "  ".join(parts)


def _seconds(value: float) -> str:
    return f"{value:.3g} s" if value >= 1 else f"{1000 * value:.3g} ms"


def _versions() -> dict:
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def _commit() -> str | None:
    """The commit, with `+` where tracked files differ from it."""
    try:
        folder = Path(__file__).parent
        head = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True
        )
        diff = subprocess.run(["git", "diff", "--quiet", "HEAD"], cwd=folder)
    except OSError:
        return None
    return head.stdout.strip() + "+" * bool(diff.returncode) or None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    return f"{len(names)} x {names[0]}" if names else platform.processor()
