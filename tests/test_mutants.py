"""Every known bug, planted, makes a test fail: the suite can notice what it claims."""

import inspect

import pytest

from ired_jax import losses, training, types
from tests import mutants, test_losses

PLANTED = mutants.of_all_tests()


@pytest.mark.parametrize("mutant", PLANTED.values(), ids=PLANTED)
def test_the_suite_notices(mutant, request):
    arguments = dict(mutant.arguments)
    for name, parameter in inspect.signature(mutant.test).parameters.items():
        if name not in arguments and parameter.default is inspect.Parameter.empty:
            arguments[name] = request.getfixturevalue(name)
    # A test notices by an assertion or by an error that it waited for and missed.
    noticed = (mutant.error, pytest.fail.Exception)
    module = mutants.module_of(mutant)
    with mutants.planted(module, *mutant.edits), pytest.raises(noticed):
        mutant.test(**arguments)


def test_every_known_bug_is_planted():
    assert set(mutants.KNOWN_BUGS) <= {mutant.bug for mutant in PLANTED.values()}


SIGN = ("(u_pos - u_neg) / num_elements", "(u_neg - u_pos) / num_elements")
SAME = ("(u_pos - u_neg) / num_elements", "(u_pos - u_neg)  / num_elements")


def test_a_plant_reaches_importers_and_is_gone_afterwards():
    before, function = dict(vars(losses)), losses.contrastive_divergence
    seen = test_losses.losses.contrastive_divergence
    with mutants.planted(losses, SIGN):
        planted = test_losses.losses.contrastive_divergence
    assert seen is function
    assert planted is not function
    assert vars(losses) == before


def test_a_plant_is_gone_after_an_error():
    before = dict(vars(losses))
    with pytest.raises(ZeroDivisionError), mutants.planted(losses, SIGN):
        _ = 1 / 0
    assert vars(losses) == before


def test_a_name_that_was_imported_is_exchanged_and_put_back():
    function = types.stream_key
    assert training.stream_key is function
    with mutants.planted(types, ("(key, step)(stream)", "(key, step + 1)(stream)")):
        assert training.stream_key is types.stream_key is not function
    assert training.stream_key is types.stream_key is function


def test_an_edit_that_changes_nothing_is_not_noticed():
    with mutants.planted(losses, SAME):
        check = test_losses.test_data_are_pushed_down_and_samples_up
        check("contrastive divergence")


@pytest.mark.parametrize("text", ["no such text", "return"])
def test_a_plant_that_does_not_fit_once_is_refused(text):
    refused = pytest.raises(ValueError, match=f"times in .*losses: {text}")
    with refused, mutants.planted(losses, (text, "")):
        pass
