"""The Sudoku energies and their PyTorch peers are one network, the question runs."""

import json

import pytest

from benchmarks import board


@pytest.mark.parametrize(
    "energy, rounds", [("board", ["--rounds=2"]), ("convolutional", [])]
)
def test_the_board_question_runs_and_its_answers_agree(
    energy, rounds, tmp_path, capsys
):
    sizes = [f"--energy={energy}", "--channels=3", "--layers=2", *rounds]
    argv = [
        "--batch_size=5",
        "--repeats=1",
        "--systems=torch_eager",
        f"--out={tmp_path}",
    ]
    board.main(sizes + argv)
    compared = capsys.readouterr().out
    for name in ("energy", "gradient", "loss", "loss gradient"):
        assert f"{name}, torch_eager: relative difference" in compared
    lines = (tmp_path / f"{energy}.jsonl").read_text().splitlines()
    found = {(row["work"], row["system"]) for row in map(json.loads, lines)}
    names = ("ired_jax", "torch_eager")
    of_works = {(work, name) for work in ("gradient", "train") for name in names}
    assert found == of_works | {("matrix", "matrix")}


def test_hand_count_of_a_boards_products():
    # A layer's entry and out see 729 entries, its blocks 81 means, its cells 81, its
    # rows and columns 81 each; 2 operations a weight.
    products = 2 * 9 * (729 + 729 + 81 + 81 + 81 + 81)
    assert board.board_flops(channels=3, layers=4, rounds=5) == 4 * 5 * products
    # 81 cells, each: 9 of 18 channels to 3, two times 25 of 3 to 3 a layer, 3 to 9.
    products = 2 * 81 * (9 * 18 * 3 + 4 * 2 * 25 * 3 * 3 + 3 * 9)
    assert board.convolutional_flops(channels=3, layers=4) == products
