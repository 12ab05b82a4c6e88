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
    # Said, since a person's own settings may leave new files out.
    status = git("status", "--porcelain", "--untracked-files=normal", root=root)
    files = [line[3:] for line in status.splitlines()]
    if files:
        more = f" and {len(files) - 5} more" if len(files) > 5 else ""
        raise UserError(
            f"not committed: {', '.join(files[:5])}{more} (or --allow_changes)"
        )
    return git("rev-parse", "HEAD", root=root).strip()


def require(commit: str, root: Path = ROOT) -> None:
    """Refuses to go on with other code than a commit's.

    Raises:
      UserError: another commit, or as `pinned`.
    """
    now = pinned(root)
    if now != commit:
        raise UserError(f"--commit={commit}: must be that of the code, {now}")


def refuse_as_changes(folder: Path, root: Path = ROOT) -> None:
    """Refuses a folder whose files would themselves be changes of the code.

    Raises:
      UserError: it is in the checkout, and git does not ignore what is in it.
    """
    file = str(folder.resolve() / "config.json")
    command = ["git", "-C", str(root), "check-ignore", "--quiet", file]
    done = subprocess.run(command, capture_output=True, timeout=60)
    if done.returncode == 1:  # 0: ignored, 128: elsewhere
        raise UserError(
            f"{folder}: is in the checkout, where git takes results for changes of the"
            " code: must be in runs/, or elsewhere (or --allow_changes)"
        )


def git(*arguments: str, root: Path = ROOT) -> str:
    """What a git command says of the code.

    Raises:
      UserError: there is no git, or it says that something is wrong.
    """
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
