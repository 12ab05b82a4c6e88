"""Walks to the goal and asks the model anew after each step: paths in closed loop.

    python -m experiments.train --config=configs/path.py:cpu --workdir=runs/path
    python -m examples.closed_loop --workdir=runs/path

At each node the model plans the whole rest of the way; of the plan one step is taken,
to the neighbour that it prefers. Right is a walk that reaches the goal in as few steps
as breadth-first search. Beside it the first plan, followed to its end.
"""

import argparse

import numpy as np
from scipy.sparse.csgraph import shortest_path

from experiments.score import trained
from experiments.score.scorer import Scorer


def walk(plan, adjacency, start, goal, *, most: int):
    """Where N walkers are after each step: [N, most + 1], staying at the goal.

    Args:
      plan: here [N] -> how much each node is preferred as the next one, [N, n].
      adjacency, start, goal: [N, n, n], [N], [N].
      most: steps.
    """
    rows, places = np.arange(len(start)), [np.asarray(start)]
    for _ in range(most):
        here = places[-1]
        preferred = np.where(adjacency[rows, here] > 0, plan(here), -np.inf)
        places.append(np.where(here == goal, here, preferred.argmax(1)))
    return np.stack(places, axis=1)


def lengths(adjacency, start, goal) -> np.ndarray:
    """Steps of the shortest path of each row: [N]."""
    rows = zip(adjacency, start, goal, strict=True)
    found = [shortest_path(a, unweighted=True, indices=int(s))[g] for a, s, g in rows]
    return np.array(found, int)


def figures(model: trained.Trained, num_examples: int) -> dict[str, dict[str, float]]:
    """{split: {closed loop, first plan: share right, length: mean}}."""
    scorer, found = Scorer(model.experiment), {}
    for split in model.experiment.task.splits:
        x, y = scorer.examples(split, num_examples)
        length = lengths(*x)

        def answers(here, *, split=split, x=x, y=y):
            x = x._replace(start=here.astype(x.start.dtype))
            return scorer.answers(model.params, split, x, y, restart=0)

        # Row 1 of a plan is where to be after one step.
        plan = lambda here, answers=answers: answers(here).answer[:, 1]  # noqa: E731
        places = walk(plan, *x, most=length.max())
        is_there = places == x.goal[:, None]
        right = is_there[:, -1] & (is_there.argmax(1) == length)
        found[split] = {
            "closed loop": float(np.mean(right)),
            "first plan": float(answers(x.start).figures["walk"].mean()),
            "steps": float(length.mean()),
        }
    return found


def main(argv: list[str] | None = None) -> dict[str, dict[str, float]]:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workdir", required=True, help="of a trained path energy")
    parser.add_argument("--num_examples", type=int, default=512)
    options = parser.parse_args(argv)
    model = trained.load(options.workdir)
    if model.config.task.name != "path":
        parser.error(f"--workdir={options.workdir}: must be of the task path")
    found = figures(model, options.num_examples)
    for split, parts in found.items():
        error = (parts["closed loop"] * (1 - parts["closed loop"])) ** 0.5
        error /= options.num_examples**0.5
        print(
            f"{split:>8}  closed loop {parts['closed loop']:.3f} +- {error:.3f}, first"
            f" plan {parts['first plan']:.3f}, {parts['steps']:.2f} steps on average"
        )
    return found


if __name__ == "__main__":
    main()
