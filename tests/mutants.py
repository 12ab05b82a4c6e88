"""Bugs to plant, each with the test that has to notice: the proof of the suite.

A mutant is a text edit of one module. `planted` runs the edited source in the module's
own namespace, so that everything that reaches it through the module sees the bug.
"""

import contextlib
import importlib
import pathlib
import sys
import tempfile
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp

from experiments import build, checkpoint, logs, loop, scoring, trained, workdir
from tests import (
    test_blocks,
    test_compile,
    test_configs,
    test_descent,
    test_diagnosis,
    test_diffusion,
    test_energies,
    test_inference,
    test_losses,
    test_negatives,
    test_precision,
    test_products,
    test_replay,
    test_runs,
    test_spectral,
    test_training,
    tiny,
)

# Bugs of earlier implementations, by the ids of the table in the design notes.
KNOWN_BUGS = (
    *("001", "002", "003", "004", "005", "006", "007", "008", "009", "010"),
    *("detached", "bounds", "space", "shape", "12", "9", "q209", "reg", "filter"),
)


class Mutant(NamedTuple):
    """One bug and one call of a test that must fail while it is there."""

    bug: str  # one of KNOWN_BUGS, or the part of the library
    says: str  # what is planted
    module: str
    edits: tuple[tuple[str, str], ...]  # (old, new), each old exactly once
    test: Callable
    arguments: Mapping[str, object] = MappingProxyType({})
    error: type[Exception] = AssertionError  # what the test fails with

    @property
    def name(self) -> str:
        return f"{self.bug}: {self.says}"


@contextlib.contextmanager
def planted(module, *edits):
    """Runs the module's source with each (old, new) replaced, and puts it back.

    Names that other modules imported from it are exchanged as well, and what tests keep
    compiled is forgotten.

    Raises:
      ValueError: an `old` that does not occur exactly once.
    """
    source = pathlib.Path(module.__file__).read_text()
    for old, new in edits:
        if source.count(old) != 1:
            raise ValueError(f"{source.count(old)} times in {module.__name__}: {old}")
        source = source.replace(old, new)
    saved, exchanged = dict(module.__dict__), []
    _forget_compiled()
    try:
        exec(compile(source, f"<mutant of {module.__name__}>", "exec"), module.__dict__)
        exchanged = list(_exchange(module, saved))
        yield
    finally:
        for other, name, value in exchanged:
            setattr(other, name, value)
        module.__dict__.clear()
        module.__dict__.update(saved)
        _forget_compiled()


def _ours():
    """The loaded modules of this repository."""
    rooms = ("ired_jax", "experiments", "configs", "tests")
    loaded = list(sys.modules.items())
    return [m for name, m in loaded if m and name.split(".")[0] in rooms]


def _exchange(module, saved):
    """Gives the importers of a name its new value; yields what they had."""
    defined = [
        (name, value)
        for name, value in saved.items()
        if getattr(value, "__module__", None) == module.__name__
        and module.__dict__[name] is not value
    ]
    for other in _ours():
        if other is module:
            continue
        for name, value in defined:
            for alias in [k for k, v in vars(other).items() if v is value]:
                setattr(other, alias, module.__dict__[name])
                yield other, alias, value


def _forget_compiled():
    """Empties the caches of what tests compile or build once."""
    for module in _ours():
        if module.__name__.startswith("tests."):
            for value in list(vars(module).values()):
                for forget in ("cache_clear", "clear_cache"):
                    getattr(value, forget, lambda: None)()


def module_of(mutant):
    return importlib.import_module(mutant.module)


def one(old, new):
    return ((old, new),)


@contextlib.contextmanager
def run_before_its_end():
    """A run of 6 steps on disk of which only the final report is left to do."""
    config = tiny.get_config("none", train__num_steps=6, **test_runs.EVERY_STEP)
    with tempfile.TemporaryDirectory() as scratch:
        directory = pathlib.Path(scratch) / "run"
        workdir.claim(directory, config)
        row = dict.fromkeys(test_runs.CONTRACT, 1.0)
        with logs.Logs(directory, step=0, num_steps=6) as lines:
            for step in range(1, 7):
                lines.write(row | {"step": step})
        state = build.build(config).init_state()
        with checkpoint.Checkpoints(directory) as checkpoints:
            checkpoints.save(state._replace(step=jnp.int32(6)), row)
        with quick_compilation():
            yield directory, config


@contextlib.contextmanager
def quick_compilation():
    """LLVM's passes are most of the time of a small compilation."""
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", False)


def finished_run_is_complete():
    with run_before_its_end() as (directory, config):
        state = loop.train_and_evaluate(config, directory)
        finished = directory, config, state
        test_runs.test_a_finished_run_is_complete_on_disk(finished)


def score_does_not_depend_on_the_batch():
    with run_before_its_end() as (directory, config):
        model = trained.load(directory)
        metrics = scoring.Scorer(model.experiment).score(model.params, 16)
        logs.write_json(directory / "result.json", {"metrics": metrics})
        test_runs.test_a_score_does_not_depend_on_the_evaluation_batch(
            (directory, config, None), batch_size=7
        )


PAIR_OF_ENERGIES = "return energy_fn(y_pos), energy_fn(y)"
REATTACHED = f"""pull = jax.grad(energy_fn)(y)
        y = y - pull + jax.lax.stop_gradient(pull)
        {PAIR_OF_ENERGIES}"""
HELD = "bind(energy, jax.lax.stop_gradient(params), x, t)(y)"
LOSS_CALL = "grads, metrics = gradient(state.params, batch, pairs, state.step)"
LOSS_WITH_CHAINS = f"""{LOSS_CALL}

        def held(params):
            return contrastive_loss(problem, contrast, params, pairs, state.step)[0]

        def through(params):
            moving = state._replace(params=params)
            moved = draw_pairs(problem, contrast, moving, batch, progress)[0]
            return contrastive_loss(problem, contrast, params, moved, state.step)[0]

        right, wrong = (jax.grad(f)(state.params) for f in (held, through))
        grads = jax.tree.map(lambda g, a, b: g - a + b, grads, right, wrong)"""
STOPPED = "return jax.lax.stop_gradient(rows), metrics"
START = "y = contrast.strategy.start(key(Stream.START), rows, progress)"
START_REFINED = f"""{START}
    y, _ = contrast.strategy.refine(
        key(Stream.CHAIN),
        lambda x, t: bind(problem.energy, state.params, x, t),
        rows,
        y,
        progress,
    )"""
REFINE = (
    "y, chain = contrast.strategy.refine"
    "(key(Stream.CHAIN), landscape, rows, y, progress)"
)

PLAIN_TO_A = "return to_a(cotangent, b, lax.Precision.HIGHEST)"

MUTANTS = (
    # Gradient and sign of the contrastive term
    Mutant(
        "001",
        "contrastive divergence with the sign of its loss flipped",
        "ired_jax.losses",
        one("(u_pos - u_neg) / num_elements", "(u_neg - u_pos) / num_elements"),
        test_training.test_one_step_on_the_contrastive_term_alone_widens_the_gap,
    ),
    Mutant(
        "010",
        "the pair handed over in the wrong order",
        "ired_jax.training",
        one(
            'contrast.pair_loss(u_pos, u_neg) * pairs["keep"]',
            'contrast.pair_loss(u_neg, u_pos) * pairs["keep"]',
        ),
        test_training.test_one_step_on_the_contrastive_term_alone_widens_the_gap,
    ),
    Mutant(
        "002",
        "samples leave the negative phase with their gradient",
        "ired_jax.training",
        one(STOPPED, "return rows, metrics"),
        test_training.test_the_gradient_with_chains_inside_is_that_with_the_negatives_as_constants,
        {"name": "full"},
    ),
    Mutant(
        "003",
        "the loss attaches the samples to the parameters again",
        "ired_jax.training",
        one(PAIR_OF_ENERGIES, REATTACHED),
        test_training.test_the_gradient_is_that_of_constant_samples_through_both_energies,
        {"in_nats": True, "level_weights": None},
    ),
    Mutant(
        "detached",
        "the energy of the negatives detached instead of the negatives",
        "ired_jax.training",
        one(
            PAIR_OF_ENERGIES,
            PAIR_OF_ENERGIES.replace("energy_fn(y)", HELD),
        ),
        test_training.test_the_gradient_through_the_negatives_energy_is_not_zero,
    ),
    Mutant(
        "004",
        "the contrastive term divided by the number of rows twice",
        "ired_jax.training",
        one("* share * jnp.mean(value)", "* share * jnp.mean(value) / value.size"),
        test_training.test_the_contrastive_gradient_does_not_change_with_the_number_of_rows,
    ),
    Mutant(
        "005",
        "energies of any shape are broadcast",
        "ired_jax.training",
        one(
            'chex.assert_shape([u_pos, u_neg, pairs["keep"]], t.shape)',
            "pass",
        ),
        test_training.test_shapes_that_would_broadcast_over_the_batch_are_refused,
    ),
    Mutant(
        "006",
        "the input gradient of the denoising loss times the batch size",
        "ired_jax.training",
        one("return grad, diffusion", 'return len(batch["t"]) * grad, diffusion'),
        test_training.test_a_rows_input_gradient_does_not_depend_on_the_batch,
    ),
    Mutant(
        "006",
        "the step of a chain times the number of rows",
        "ired_jax.negatives",
        one("step_size(t) * is_active", 'step_size(t) * is_active * len(rows["t"])'),
        test_negatives.test_a_row_of_a_chain_does_not_depend_on_the_other_rows,
    ),
    Mutant(
        "007",
        "the loss differentiates through the chain and keeps its graph",
        "ired_jax.training",
        ((STOPPED, "return rows, metrics"), (LOSS_CALL, LOSS_WITH_CHAINS)),
        test_compile.test_a_step_does_not_hold_the_states_of_its_chain,
    ),
    # Masks, filter, penalty
    Mutant(
        "shape",
        "the mask averaged into the scalar weight",
        "ired_jax.training",
        (
            (
                'contrast.pair_loss(u_pos, u_neg) * pairs["keep"]',
                "contrast.pair_loss(u_pos, u_neg)",
            ),
            (
                "* share * jnp.mean(value)",
                '* share * jnp.mean(pairs["keep"]) * jnp.mean(value)',
            ),
        ),
        test_training.test_a_filtered_row_contributes_nothing_and_leaves_the_others_as_they_are,
    ),
    Mutant(
        "shape",
        "a level range that forgets its share of the levels",
        "ired_jax.training",
        one("(high - low + 1) / problem.schedule.num_levels", "1.0"),
        test_training.test_a_level_range_has_the_expected_loss_of_a_mask_over_all_levels,
    ),
    Mutant(
        "reg",
        "the penalty masked by the filter",
        "ired_jax.training",
        one(
            "penalty = jnp.mean(contrast.penalty(u_pos, u_neg))",
            'penalty = jnp.mean(contrast.penalty(u_pos, u_neg) * pairs["keep"])',
        ),
        test_training.test_the_penalty_is_there_when_every_row_is_filtered,
    ),
    Mutant(
        "reg",
        "the penalty not per element, so far too strong",
        "ired_jax.losses",
        one("(u_pos / num_elements) ** 2", "u_pos**2"),
        test_losses.test_a_pair_loss_and_its_gradient_equal_the_formula_for_each_pair,
        {"name": "energy penalty"},
    ),
    Mutant(
        "filter",
        "a level's quantile with gradient",
        "ired_jax.losses",
        one("jax.lax.stop_gradient(residual)", "residual"),
        test_negatives.test_a_threshold_carries_no_gradient,
        {"mode": "batch_quantile", "per_level": True},
    ),
    Mutant(
        "filter",
        "the quantile of all rows with gradient",
        "ired_jax.negatives",
        one("jax.lax.stop_gradient(residual)", "residual"),
        test_negatives.test_a_threshold_carries_no_gradient,
        {"mode": "running_quantile", "per_level": False},
    ),
    Mutant(
        "filter",
        "the threshold taken on the energy",
        "ired_jax.training",
        one(
            "limits = negatives.thresholds(",
            "residual = jax.vmap(lambda x, t, y: energy_at(x, t)(y))("
            'rows["x"], rows["t"], rows["y"])\n'
            "    limits = negatives.thresholds(",
        ),
        test_training.test_the_filter_keeps_by_the_tasks_residual_and_not_by_the_energy,
        {"per_level": True},
    ),
    Mutant(
        "filter",
        "momentum and its complement exchanged in the running threshold",
        "ired_jax.negatives",
        one(
            "spec.momentum * previous + (1 - spec.momentum) * batch",
            "(1 - spec.momentum) * previous + spec.momentum * batch",
        ),
        test_negatives.test_a_running_quantile_starts_at_the_first_batch_and_moves_by_its_momentum,
    ),
    # Replay
    Mutant(
        "008",
        "rows are not refined once there is a buffer",
        "ired_jax.training",
        one(
            REFINE,
            f"still = y\n    {REFINE}\n    y = still if contrast.replay else y",
        ),
        test_training.test_replayed_chains_move_and_lower_their_energy_without_noise,
    ),
    Mutant(
        "009",
        "fresh starts refined before replayed ones replace them",
        "ired_jax.training",
        one(START, START_REFINED),
        test_compile.test_dead_work_is_under_one_per_cent_of_the_negative_phase,
    ),
    Mutant(
        "space",
        "y_0 stored where y_t is read",
        "ired_jax.training",
        one(
            "{name: pairs[name] for name in rings.rows}",
            '{name: pairs[name] for name in rings.rows} | {"y": pairs["y0"]}',
        ),
        test_training.test_a_stored_entry_is_the_chains_end_with_the_spread_of_its_level,
    ),
    Mutant(
        "replay",
        "one coin for all rows",
        "ired_jax.training",
        one("bucket.shape if spec.per_row_coin else ()", "()"),
        test_training.test_each_row_has_its_own_coin,
    ),
    Mutant(
        "replay",
        "rows of empty buckets replayed as zeros",
        "ired_jax.training",
        one("use = is_available & ", "use = jnp.ones_like(is_available) & "),
        test_training.test_rows_of_empty_buckets_start_fresh_and_the_others_are_replayed,
    ),
    Mutant(
        "replay",
        "the positive of a replayed row noised from the fresh answer",
        "ired_jax.training",
        one(
            'q_sample(rows["y0"], rows["t"], rows["eps"])',
            'q_sample(batch["y0"][: contrast.num_rows], rows["t"], rows["eps"])',
        ),
        test_training.test_the_positive_of_a_replayed_row_is_its_own_answer_noised_afresh,
    ),
    Mutant(
        "replay",
        "the ring's head stands still",
        "ired_jax.replay",
        one("head=(state.head + count) % state.capacity", "head=state.head"),
        test_replay.test_any_program_of_inserts_leaves_what_the_deques_hold,
        {"capacity": 4},
    ),
    Mutant(
        "replay",
        "of too many rows the oldest stay",
        "ired_jax.replay",
        one("rank >= count[bucket] - state.capacity", "rank < state.capacity"),
        test_replay.test_of_more_rows_than_slots_in_one_insert_the_newest_stay_in_order,
    ),
    Mutant(
        "replay",
        "one row of each bucket is never drawn",
        "ired_jax.replay",
        one("bits % jnp.maximum(size, 1)", "bits % jnp.maximum(size - 1, 1)"),
        test_replay.test_rows_are_drawn_uniformly_from_all_that_the_bucket_holds,
    ),
    # Temperature, chains, starts
    Mutant(
        "temperature",
        "chains at temperature 1 on E",
        "ired_jax.training",
        one("scaled(energy_fn, _scale(contrast, schedule, t))", "energy_fn"),
        test_training.test_a_stored_entry_is_the_chains_end_with_the_spread_of_its_level,
    ),
    Mutant(
        "temperature",
        "E for U in the loss",
        "ired_jax.training",
        one("scale = _scale(contrast, problem.schedule, t)", "scale = jnp.ones(())"),
        test_training.test_the_gradient_is_that_of_constant_samples_through_both_energies,
        {"in_nats": True, "level_weights": None},
    ),
    Mutant(
        "langevin",
        "five per cent too much noise",
        "ired_jax.samplers.langevin",
        one(
            "y = state.y - h * grad + jnp.sqrt(2 * h * temperature) * xi",
            "y = state.y - h * grad + 1.05 * jnp.sqrt(2 * h * temperature) * xi",
        ),
        test_negatives.test_langevin_negatives_have_the_exact_width_of_the_discrete_chain,
        {"form": "nats"},
    ),
    Mutant(
        "langevin",
        "the two proposal densities exchanged",
        "ired_jax.samplers.langevin",
        one("(forth - back)", "(back - forth)"),
        test_negatives.test_adjusted_negatives_keep_the_exact_law_of_the_landscape,
    ),
    Mutant(
        "langevin",
        "a curriculum that starts with no step at all",
        "ired_jax.negatives",
        one(
            "jnp.maximum(1.0, ramp(progress, curriculum) * num_steps)",
            "ramp(progress, curriculum) * num_steps",
        ),
        test_negatives.test_a_curriculum_moves_a_growing_number_of_steps_and_the_others_not_at_all,
    ),
    Mutant(
        "negatives",
        "one key for both parts of a mixture",
        "ired_jax.negatives",
        one("jax.random.split(key), split(rows)", "(key, key), split(rows)"),
        test_negatives.test_no_two_rows_share_their_noise,
        {"name": "mixed"},
    ),
    Mutant(
        "negatives",
        "adversarial ascends",
        "ired_jax.samplers.descent",
        one("state.y - h * state.grad", "state.y + h * state.grad"),
        test_negatives.test_adversarial_descends_before_it_is_renoised,
    ),
    Mutant(
        "negatives",
        "renoised with other noise than the positive's",
        "ired_jax.negatives",
        one(
            'return _q_sample(schedule, y0, rows["t"], rows["eps"])',
            'return _q_sample(schedule, y0, rows["t"], -rows["eps"])',
        ),
        test_negatives.test_nce_noise_clips_the_start_in_y0_space_and_renoises_with_the_positives_eps,
    ),
    Mutant(
        "negatives",
        "the trajectory of another level",
        "ired_jax.negatives",
        one("info.answers[schedule.num_levels - 1 - t]", "info.answers[t]"),
        test_negatives.test_a_trajectory_gives_the_models_own_answer_of_each_level_noised,
        {"in_nats": True},
    ),
    Mutant(
        "negatives",
        "a trajectory that descends U with steps of E",
        "ired_jax.negatives",
        one("self.unit(t) * energy_fn(y)", "energy_fn(y)"),
        test_negatives.test_a_trajectory_gives_the_models_own_answer_of_each_level_noised,
        {"in_nats": True},
    ),
    Mutant(
        "inference",
        "a tolerance on the slope, not on the answer",
        "ired_jax.samplers.inference",
        one("tolerance / schedule.s[t]", "tolerance"),
        test_inference.test_each_level_stops_where_its_denoised_answer_is_within_the_tolerance,
    ),
    Mutant(
        "inference",
        "a descent that stops at its first rejected step",
        "ired_jax.samplers.descent",
        one("~accepted & (stays_so[count] == 1)", "~accepted"),
        test_descent.test_a_tolerance_of_zero_changes_no_answer_and_saves_steps,
        {"name": "bowl"},
    ),
    Mutant(
        "bounds",
        "the bound of row 0 for all rows of the negatives",
        "ired_jax.negatives",
        one(
            "limit = bounds * schedule.a[t]",
            'limit = bounds * schedule.a[rows["t"][0]]',
        ),
        test_negatives.test_each_row_is_clamped_at_the_bound_of_its_own_level,
    ),
    Mutant(
        "bounds",
        "one level's bound for all levels of inference",
        "ired_jax.samplers.inference",
        one("bounds=bounds * a,", "bounds=bounds * schedule.a[0],"),
        test_inference.test_every_level_is_held_to_its_own_bounds_for_every_row,
    ),
    Mutant(
        "inference",
        "the answer shrunk by a_0",
        "ired_jax.samplers.inference",
        one("return y0, SolveInfo(", "return schedule.a[0] * y0, SolveInfo("),
        test_inference.test_on_the_ideal_landscape_every_row_finds_its_answer,
    ),
    Mutant(
        "inference",
        "every step of a descent accepted",
        "ired_jax.samplers.descent",
        one(
            "accepted = new.energy < state.energy",
            "accepted = new.energy == new.energy",
        ),
        test_descent.test_a_rejected_step_is_tried_again_from_where_it_stood,
    ),
    Mutant(
        "diffusion",
        "predict_start adds the noise",
        "ired_jax.diffusion",
        one(
            "(y - schedule.s[t] * grad) / schedule.a[t]",
            "(y + schedule.s[t] * grad) / schedule.a[t]",
        ),
        test_diffusion.test_the_noise_as_gradient_gives_back_the_start,
    ),
    # Seeds
    Mutant(
        "seeds",
        "each begins where the one before it ended",
        "experiments.build",
        one(
            "lambda leaf: leaf[index], states)", "lambda leaf: leaf[index - 1], states)"
        ),
        test_runs.test_each_of_several_seeds_takes_the_steps_that_it_takes_alone,
    ),
    # Energies
    Mutant(
        "energies",
        "the stack of the answer multiplied entry by entry",
        "ired_jax.energies.products",
        one("z @ mix(layer.right, stack)", "z * mix(layer.right, stack)"),
        test_energies.test_value_and_input_gradient_equal_the_float64_oracle,
        {"row": test_energies.ANSWER_ROW},
    ),
    Mutant(
        "energies",
        "no bias in the gradient by W W^T",
        "ired_jax.energies.mlp",
        one("pull_back(2 * (h @ weight + bias))", "pull_back(2 * (h @ weight))"),
        test_energies.test_binding_condition_and_level_changes_nothing,
        {"row": test_energies.TABLE_ROW},
    ),
    Mutant(
        "energies",
        "a gradient of its own left in units of the energy",
        "ired_jax.types",
        one("WithGrad(value, over_scale(grad))", "WithGrad(value, grad)"),
        test_energies.test_a_scaled_landscape_s_value_and_gradient_are_divided,
        {"row": test_energies.TABLE_ROW},
    ),
    Mutant(
        "energies",
        "a weight matrix divided by its Frobenius norm",
        "ired_jax.energies.spectral",
        one("leaf / jnp.maximum(next(sigmas), FLOOR)", "leaf / jnp.linalg.norm(leaf)"),
        test_spectral.test_every_weight_matrix_of_an_energy_is_normalised,
        {"energy": test_spectral.ENERGIES[0]},
    ),
    Mutant(
        "energies",
        "a weight matrix divided by the square of its singular value",
        "ired_jax.energies.spectral",
        one(
            "jnp.maximum(next(sigmas), FLOOR)", "jnp.maximum(next(sigmas) ** 2, FLOOR)"
        ),
        test_spectral.test_every_weight_matrix_of_an_energy_is_normalised,
        {"energy": test_spectral.ENERGIES[0]},
    ),
    Mutant(
        "energies",
        "no gradient through the singular value",
        "ired_jax.energies.spectral",
        one("zip(us, weights, vs, strict=True)", "zip(us, held, vs, strict=True)"),
        test_spectral.test_the_gradient_of_the_singular_value_is_that_of_finite_differences,
    ),
    Mutant(
        "energies",
        "the power iteration done again at every step of a chain",
        "ired_jax.energies.spectral",
        one(
            "return types.bind(energy, normalised(params, num_iterations), x, t)",
            "return lambda y: apply(params, x, y, t)",
        ),
        test_spectral.test_the_iteration_is_done_once_for_all_rows_and_outside_the_chain,
    ),
    # Products
    Mutant(
        "energies",
        "the gradient of a product without its transpose",
        "ired_jax.energies.products",
        one("(_transposed(operand) for operand", "(operand for operand"),
        test_products.test_first_and_second_derivatives_are_those_of_plain_products,
        {"batch": ()},
    ),
    Mutant(
        "energies",
        "a derivative in the precision of wherever it is traced",
        "ired_jax.energies.products",
        one("return jax.config.jax_default_matmul_precision", "return None"),
        test_products.test_the_precision_of_the_products_is_that_of_their_derivatives,
    ),
    # Blocks
    Mutant(
        "training",
        "mean squares reported for their roots",
        "ired_jax.training",
        one("jnp.sqrt(metrics[name]) for", "metrics[name] for"),
        test_training.test_a_step_reports_the_roots_of_its_mean_squares,
    ),
    Mutant(
        "blocks",
        "the rows that are left over count as much as a block",
        "ired_jax.blocks",
        one("share = _size(rest) / num_rows", "share = size / num_rows"),
        test_blocks.test_the_gradient_of_a_mean_is_that_of_all_rows,
        {"block_rows": 4},
    ),
    Mutant(
        "blocks",
        "the sum of the blocks for their mean",
        "ired_jax.blocks",
        one("size / num_rows * a", "1.0 * a"),
        test_blocks.test_a_step_in_blocks_is_the_step_of_all_rows,
        {"name": "none"},
    ),
    Mutant(
        "blocks",
        "the strategy handed all rows at once",
        "ired_jax.negatives",
        one("blocks.vmap(one, block_rows)(keys, rows", "blocks.vmap(one)(keys, rows"),
        test_blocks.test_a_chain_holds_one_block,
    ),
    # Precision
    Mutant(
        "precision",
        "operands of the second kind not rounded",
        "ired_jax.precision",
        one("cut(b),", "b,"),
        test_precision.test_value_and_gradients_are_those_of_products_of_rounded_operands,
        {"name": "bfloat16", "part": "bind"},
    ),
    Mutant(
        "precision",
        "cotangents not rounded: the backward products in float32",
        "ired_jax.precision",
        one("return rounded(to_a, form)(cotangent, b)", PLAIN_TO_A),
        test_precision.test_value_and_gradients_are_those_of_products_of_rounded_operands,
        {"name": "bfloat16", "part": "bind"},
    ),
    Mutant(
        "precision",
        "chains in the precision of the evaluation",
        "ired_jax.training",
        one("contrast.chain_energy or problem.energy", "problem.energy"),
        test_training.test_each_part_of_a_step_sees_its_own_energy,
        {"part": "chain_energy"},
    ),
    Mutant(
        "precision",
        "evaluation in the precision of the loss",
        "experiments.build",
        one(
            'in_precision(energy, "float32")',
            'in_precision(energy, read("precision.loss"))',
        ),
        test_configs.test_a_precision_changes_the_step_and_not_the_evaluation,
        {"field": "precision.loss"},
    ),
    # The run
    Mutant(
        "average",
        "decay and its complement exchanged",
        "ired_jax.training",
        one("decay * a + (1 - decay) * p", "(1 - decay) * a + decay * p"),
        test_training.test_the_average_copies_until_the_warm_up_and_then_decays_every_few_steps,
    ),
    Mutant(
        "12",
        "the width never reaches the energy",
        "experiments.build",
        one(
            'width=read("energy.width", at_least=1)',
            'width=(read("energy.width", at_least=1), 8)[1]',
        ),
        test_configs.test_a_field_changes_the_run,
        {"field": "energy.width"},
    ),
    Mutant(
        "9",
        "results written to a scratch directory that is then removed",
        "experiments.loop",
        one(
            'write_json(directory / "result.json", result)',
            """import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        write_json(Path(scratch) / "result.json", result)""",
        ),
        finished_run_is_complete,
        error=FileNotFoundError,
    ),
    Mutant(
        "q209",
        "start noise keyed by the place in the batch",
        "experiments.scoring",
        one(
            "(params, x[take], index, restart)\n            residual",
            "(params, x[take], index - index[0], restart)\n            residual",
        ),
        score_does_not_depend_on_the_batch,
    ),
    # Studies
    Mutant(
        "study",
        "AUROC pooled over x",
        "experiments.study",
        one(
            "statistics.auroc(energy, is_right)",
            "statistics.auroc(energy.reshape(1, -1), is_right.reshape(1, -1))",
        ),
        test_diagnosis.test_an_energy_that_falls_with_the_error_ranks_the_wrong_way_round,
    ),
    Mutant(
        "study",
        "width in units of a_t",
        "experiments.diagnosis",
        one("y0) / schedule.s[t]) ** 2", "y0) / schedule.a[t]) ** 2"),
        test_diagnosis.test_chains_on_the_ideal_landscape_have_the_width_of_their_exact_law,
    ),
    Mutant(
        "study",
        "candidates left in y_0 space",
        "experiments.diagnosis",
        one("energy_fn)(schedule.a[t] * answers)", "energy_fn)(answers)"),
        test_diagnosis.test_a_candidate_stands_at_its_own_place_of_the_level,
    ),
    Mutant(
        "study",
        "AUROC of wrong answers among themselves left in",
        "experiments.statistics",
        one("ranks - wrong * (wrong + 1) / 2", "ranks"),
        test_diagnosis.test_the_auroc_counts_pairs_of_a_right_and_a_wrong_answer,
    ),
    Mutant(
        "study",
        "the answer of highest energy picked",
        "experiments.statistics",
        one("np.argmin(energy, axis=2)", "np.argmax(energy, axis=2)"),
        test_diagnosis.test_the_best_of_several_is_the_best_where_energy_is_error_and_else_the_worst,
    ),
    Mutant(
        "study",
        "restarts from the same start noise",
        "experiments.scoring",
        one("restart, Stream.EVAL_START", "0, Stream.EVAL_START"),
        test_diagnosis.test_a_restart_has_start_noise_of_its_own_and_the_first_is_the_score_of_record,
    ),
)
