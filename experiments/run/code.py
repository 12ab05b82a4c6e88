"""Which code runs: the commit that a job is pinned to, checked by the job itself."""

import subprocess
from pathlib import Path

from experiments.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def pinned(root: Path = ROOT) -> str:
    """The commit of the code, all of it committed.

    Raises:
      UserError: files that are changed or not committed, which are named, or no commit.
    """
    files = [line[3:] for line in _git(root, "status", "--porcelain").splitlines()]
    if files:
        more = f" and {len(files) - 5} more" if len(files) > 5 else ""
        raise UserError(
            f"not committed: {', '.join(files[:5])}{more} (or --allow_changes)"
        )
    return _git(root, "rev-parse", "HEAD").strip()


def require(commit: str, root: Path = ROOT) -> None:
    """Refuses to go on with other code than a commit's.

    Raises:
      UserError: another commit, or as `pinned`.
    """
    now = pinned(root)
    if now != commit:
        raise UserError(f"--commit={commit}: must be that of the code, {now}")


def _git(root: Path, *arguments: str) -> str:
    try:
        return subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(f"{root}: git knows no commit of this code") from error
