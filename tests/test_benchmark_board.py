"""The Sudoku energy and its PyTorch peer are one network, and the question runs."""

import argparse
import json

from benchmarks import board


def test_the_board_question_runs_and_its_answers_agree(tmp_path, capsys):
    sizes = ["--channels=3", "--layers=2", "--rounds=2", "--batch_size=5"]
    argv = [*sizes, "--repeats=1", "--systems=torch_eager", f"--out={tmp_path}"]
    board.main(argv)
    compared = capsys.readouterr().out
    for name in ("energy", "gradient", "loss", "loss gradient"):
        assert f"{name}, torch_eager: relative difference" in compared
    lines = (tmp_path / "board.jsonl").read_text().splitlines()
    found = {(row["work"], row["system"]) for row in map(json.loads, lines)}
    names = ("ired_jax", "torch_eager")
    of_works = {(work, name) for work in ("gradient", "train") for name in names}
    assert found == of_works | {("matrix", "matrix")}


def test_hand_count_of_a_boards_products():
    # A layer's entry and out see 729 entries, its blocks 81 means, its cells 81, its
    # rows and columns 81 each; 2 operations a weight.
    flags = argparse.Namespace(channels=3, layers=4, rounds=5)
    products = 2 * 9 * (729 + 729 + 81 + 81 + 81 + 81)
    assert board.forward_flops(flags) == 4 * 5 * products
