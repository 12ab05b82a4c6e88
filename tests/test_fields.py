"""Fields are found on makers, checked, and handed to those that declare them."""

import sys
from functools import partial
from typing import Annotated, NamedTuple

import pytest

from experiments import fields
from experiments.build import make_experiment
from experiments.errors import UserError
from experiments.schema import everything, group_of, schema
from ired_jax import energies
from ired_jax.fields import Choice, Choices, Field, Names, Package, Part
from tests.mutants import Mutant, one


class Wheel(NamedTuple):
    size: Annotated[float, Field("of a wheel, cm", above=0)] = 30.0
    spokes: Annotated[int, Field("of a wheel", at_least=3, name="num_spokes")] = 20


def make_motor(
    wheel, *, power: Annotated[float, Field("watts", above=0, group="motor")] = 250.0
):
    return "motor", wheel.size, power


def make_pedals(
    *, length: Annotated[int, Field("mm", one_of=(165, 170))] = 170, units="mm"
):
    if length == 165:
        raise ValueError("drive.length=165: is sold out")
    return "pedals", length, units


def make_basket(colour, share, *, depth: Annotated[int, Field("cm", at_least=1)] = 20):
    return "basket", colour, share, depth


def make_bell(*, tone: Annotated[str, Field("a note")] = "a"):
    return "bell", tone


def make_light(*, is_on: Annotated[bool, Field("or off", group="lights")] = False):
    return "light", is_on


def names_of(wheel):
    return Names(colour="red", circumference=3 * wheel.size)


DRIVES = {"motor": make_motor, "pedals": make_pedals, "none": None}


def make_bike(
    *,
    wheel: Annotated[Wheel, Part(Wheel, "wheel")] = Wheel(28.0),  # noqa: B008
    names: Annotated[Names, Part(names_of)],
    drive: Annotated[
        tuple | None, Choice(DRIVES, Field("what moves it", group="drive", name="name"))
    ] = "pedals",
    basket: Annotated[
        tuple | None,
        Choice(
            lambda share: make_basket if share else None,
            Field("full", at_least=0, at_most=1, group="basket", name="share"),
        ),
    ] = 0.0,
    extras: Annotated[
        dict,
        Choices({"bell": make_bell, "light": make_light}, Field("", group="")),
    ] = (),
    limits: Annotated[tuple[float, ...], Field("km/h", group="", other=(5.0,))] = (),
):
    return wheel, drive, basket, extras, limits, names["circumference"]


def make(**given):
    given = {name.replace("__", "."): value for name, value in given.items()}
    return fields.make(make_bike, fields.resolve(make_bike, given))


def test_the_fields_are_those_of_the_chosen_parts_in_order():
    assert list(schema(make_bike, {})) == [
        *("wheel.size", "wheel.num_spokes", "drive.name", "drive.length"),
        *("basket.share", "extras", "limits"),
    ]
    given = {"drive.name": "motor", "basket.share": 0.5, "extras": ("light", "bell")}
    assert list(schema(make_bike, given)) == [
        *("wheel.size", "wheel.num_spokes", "drive.name", "motor.power"),
        *("basket.share", "basket.depth", "extras", "lights.is_on", "bell.tone"),
        "limits",
    ]


def test_a_part_has_the_defaults_of_the_instance_that_stands_for_it():
    values = fields.resolve(make_bike, {})
    assert (values["wheel.size"], values["wheel.num_spokes"]) == (28.0, 20)


def test_makers_get_their_fields_and_by_name_what_is_known():
    wheel, drive, basket, extras, limits, around = make(
        wheel__size=30, drive__name="motor", basket__share=0.5, limits=(25.0,)
    )
    assert wheel == Wheel(30.0, 20)
    assert drive == ("motor", 30.0, 250.0)
    assert basket == ("basket", "red", 0.5, 20)
    assert (extras, limits, around) == ({}, (25.0,), 90.0)


def test_a_choice_may_be_none_and_several_are_a_dict_by_name():
    _, drive, basket, extras, *_ = make(
        drive__name="none", extras=("bell", "light"), bell__tone="c"
    )
    assert drive is None
    assert basket is None
    assert extras == {"bell": ("bell", "c"), "light": ("light", False)}


def test_an_int_is_a_float_where_one_is_declared_and_true_is_no_int():
    assert repr(fields.resolve(make_bike, {"wheel.size": 3})["wheel.size"]) == "3.0"
    with pytest.raises(UserError, match="num_spokes=True: must be of type int"):
        fields.resolve(make_bike, {"wheel.num_spokes": True})


def test_a_field_of_several_choices_names_some_of_them():
    def maker():  # each another one, of the same field
        def make(*, tone: Annotated[str, Field("a note")] = "a"):
            return tone

        return make

    makers = {name: maker() for name in "abcde"} | {"none": None}
    kind = Choice(makers, Field("which", group="bell", name="kind"))

    def make_one(*, bell: Annotated[str, kind] = "none"):
        return bell

    with pytest.raises(UserError) as caught:
        fields.resolve(make_one, {"bell.tone": "c"})
    ways = " or ".join(f"bell.kind='{name}' (here 'none')" for name in "abc")
    expected = f"bell.tone: is a field only with {ways} or 2 more ways (docs/fields.md)"
    assert str(caught.value) == expected


REFUSED = [
    ({"wheel.size": 0.0}, r"^wheel.size=0.0: must be above 0$"),
    ({"drive.length": 171}, r"^drive.length=171: allowed are 165, 170$"),
    ({"drive.name": "sail"}, r"^drive.name='sail': allowed are motor, pedals, none$"),
    ({"basket.share": 2.0}, r"^basket.share=2.0: must be at least 0 and at most 1$"),
    ({"extras": ("horn",)}, r"^extras='horn': allowed are bell, light$"),
    ({"extras": ("bell", "bell")}, "names one twice"),
    ({"wheel.sise": 3.0}, r"^wheel.sise: there is no such field, nearest are wheel.s"),
    ({"size": 3.0}, "nearest are wheel.size"),
    (
        {"motor.power": 3.0},
        r"^motor.power: is a field only with drive.name='motor' \(here 'pedals'\)$",
    ),
    ({"basket.depth": 3}, r"only with another basket.share \(here 0.0\)$"),
    ({"bell.tone": "c"}, r"only with 'bell' among extras"),
    ({"drive.length": 165}, r"^drive.length=165: is sold out$"),
]


@pytest.mark.parametrize("given, sentence", REFUSED)
def test_bad_input_is_refused_in_one_sentence(given, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        fields.make(make_bike, fields.resolve(make_bike, given))
    assert "\n" not in str(caught.value)


def test_a_maker_that_asks_for_what_nobody_knows_says_so():
    with pytest.raises(UserError, match="make_motor asks for 'wheel', which is not"):
        fields.make(make_motor, {"motor.power": 1.0})


def test_what_is_bound_is_no_field():
    maker = partial(make_motor, power=1.0)
    assert not schema(maker, {})
    assert fields.make(maker, {}, {"wheel": Wheel()}) == ("motor", 30.0, 1.0)


def test_one_name_is_declared_in_one_way():
    def make_two(
        *,
        a: Annotated[int, Field("one", group="", name="n")] = 1,
        b: Annotated[int, Field("one", group="", name="n")] = 2,
    ): ...

    with pytest.raises(ValueError, match="n: is declared twice"):
        schema(make_two, {})


def test_another_choice_takes_the_fields_of_the_old_one_with_it():
    given = {"drive.name": "motor", "motor.power": 3.0, "wheel.size": 2.0}
    values = fields.replace(make_bike, given, {"drive.name": "pedals"})
    assert values == fields.resolve(make_bike, {"wheel.size": 2.0})
    with pytest.raises(UserError, match=r"^motor.power: is a field only with"):
        fields.replace(make_bike, given, {"drive.name": "none", "motor.power": 1.0})


def test_what_differs_from_the_defaults_is_the_whole_config():
    given = {"drive.name": "motor", "motor.power": 3.0, "wheel.size": 28.0}
    values = fields.resolve(make_bike, given)
    assert fields.differing(make_bike, values) == {
        "drive.name": "motor",
        "motor.power": 3.0,
    }


def test_everything_holds_the_fields_under_every_choice():
    names = {spec.name for spec in everything(make_bike)}
    assert names == {
        *("wheel.size", "wheel.num_spokes", "drive.name", "motor.power"),
        *("drive.length", "basket.share", "basket.depth", "extras", "bell.tone"),
        *("lights.is_on", "limits"),
    }


def test_other_values_are_allowed_ones():
    values = fields.resolve(make_bike, {"extras": ("light",)})
    specs = schema(make_bike, values)
    others = {name: fields.others(specs[name], values[name]) for name in values}
    assert others["wheel.num_spokes"][0] == 21
    assert others["wheel.size"][0] == 14.0
    assert others["lights.is_on"] == [True]
    assert others["drive.length"] == [165]
    assert others["drive.name"] == ["motor", "none"]
    assert others["limits"] == [(5.0,)]
    assert others["basket.share"] == [0.5, 1.0]


def test_a_module_on_the_path_is_a_choice_as_well(tmp_path, monkeypatch):
    (tmp_path / "my_energy.py").write_text(
        "from typing import Annotated\n"
        "from ired_jax.fields import Field\n"
        "def make_my_energy(*, depth: Annotated[int, Field('of mine')] = 4): ...\n"
    )
    (tmp_path / "my_broken.py").write_text("import no_such_module\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    names = schema(make_experiment, {"energy.name": "my_energy"})
    assert names["energy.depth"].default == 4
    assert "matrix" in Package(energies)
    for name, why in (
        ("my_broken", "no_such_module"),
        ("json", "allowed are .*matrix"),
    ):
        with pytest.raises(UserError, match=rf"energy.name='{name}'.*{why}"):
            schema(make_experiment, {"energy.name": name})


def test_the_page_of_all_fields_is_up_to_date():
    written = fields.PAGE.read_text()
    assert written == fields.table(make_experiment), "python -m experiments.fields"


def test_an_own_maker_s_fields_are_in_the_group_of_its_last_name():
    several = Choices({}, Field("which"))
    assert group_of(several, "", "objectives", "my.module.levelled") == "levelled"
    assert group_of(several._replace(group="own"), "", "", "my.levelled") == "own"


MUTANTS = [
    Mutant(
        "12",
        "unknown fields are dropped",
        "experiments.fields",
        one(
            "        if name not in specs:\n            raise",
            "        if 0:\n            raise",
        ),
        test_bad_input_is_refused_in_one_sentence,
        {"given": {"wheel.sise": 3.0}, "sentence": "no such field"},
        error=pytest.fail.Exception,
    ),
    Mutant(
        "fields",
        "values are not checked",
        "experiments.fields",
        one(
            "{name: check(s, given.get(name, s.default)) for",
            "{name: given.get(name, s.default) for",
        ),
        test_bad_input_is_refused_in_one_sentence,
        {"given": {"drive.length": 171}, "sentence": "length"},
        error=pytest.fail.Exception,
    ),
    Mutant(
        "fields",
        "a part forgets the instance that stands for it",
        "experiments.schema",
        one("default if isinstance(default, tuple) else None", "None"),
        test_a_part_has_the_defaults_of_the_instance_that_stands_for_it,
    ),
    Mutant(
        "fields",
        "the fields of the old choice stay",
        "experiments.fields",
        one("there = {*schema(maker, merged), *changes}", "there = set(merged)"),
        test_another_choice_takes_the_fields_of_the_old_one_with_it,
        error=UserError,
    ),
]
