"""Example 1 of the paper, number for number."""

import pytest
import torch

from eigendamage.studies.example1 import HESSIAN, WEIGHTS, obd_scores, obs_scores, removal, table
from tests import reference


def close(values, expected, atol):
    torch.testing.assert_close(
        values, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=atol
    )


def test_scores():
    close(obd_scores(), [0.5, 0.5, 0.25], 1e-12)
    close(obs_scores(), [0.00985, 0.00985, 0.2475], 5e-5)


def test_one_weight_the_surgeon_is_better():
    delta, increase = removal((2,), "zero")
    close(delta, [0.0, 0.0, -1.0], 0)
    assert increase == pytest.approx(0.25)
    delta, increase = removal((0,), "diagonal")
    close(delta, [-1.0, 0.990, -0.0198], 5e-4)
    assert increase == pytest.approx(0.00985, abs=5e-6)
    assert increase == pytest.approx(float(obs_scores()[0]))


def test_two_weights_the_surgeons_choice_is_worse():
    assert removal((1, 2), "zero")[1] == pytest.approx(0.76) and removal((0, 1), "zero")[
        1
    ] == pytest.approx(1.99)
    assert float(obd_scores()[1:].sum()) == pytest.approx(0.75)
    assert float(obs_scores()[:2].sum()) == pytest.approx(0.0197, abs=5e-5)


@pytest.mark.parametrize(("which", "increase"), [((1, 2), 0.26995), ((0, 1), 1.9899)])
def test_even_the_joint_optimum_is_worse_for_the_surgeons_choice(which, increase):
    gone = torch.zeros(3, dtype=torch.bool).index_fill(0, torch.tensor(which), True)
    delta, least = reference.constrained_minimum(HESSIAN, WEIGHTS, gone)
    mine, joint = removal(which, "joint")
    torch.testing.assert_close(mine, delta)
    assert joint == pytest.approx(least)
    assert joint == pytest.approx(increase, abs=5e-6)


def test_the_printed_table_has_every_case():
    assert len(table().splitlines()) == 2 + 4 * 3
