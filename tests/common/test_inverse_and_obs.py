"""The blocked inverse against explicit matrices and the textbook recursion; the three updates
against their definitions.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.cells.errors import NumericalError, UserError
from common.cells.spec import Spec
from common.curvature import blocks
from common.curvature.blocks import BlockFisher
from common.curvature.kron import Kron, KronInverse
from common.pruning import obs
from tests import reference, toy

# m, d, chunk
SHAPES = [
    (3, 10, None),
    (12, 10, None),
    (3, 10, 4),
    (5, 12, 4),
    (7, 12, 4),
    (4, 4, 4),
    (1, 9, 2),
    (20, 7, 3),
]


def problem(m, d, seed=0, dtype=torch.float64):
    g = toy.generator(seed)
    return torch.randn(m, d, generator=g, dtype=dtype), torch.randn(
        d, generator=g, dtype=torch.float64
    )


def equal(a, b, tolerance=1e-9):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * float(b.abs().max()))


@pytest.mark.parametrize(("m", "d", "chunk"), SHAPES)
@pytest.mark.parametrize("damping", [1e-5, 1e-2, 10.0])
def test_inverse_of_the_explicit_damped_matrix(m, d, chunk, damping):
    """Fewer and more rows than weights, whole and partial blocks. κ reaches 1e6, so 1e-9 is the
    float64 limit.
    """
    rows, v = problem(m, d)
    fisher = BlockFisher(rows, damping, chunk)
    truth = reference.damped_fisher(rows, damping, chunk)
    inverse = torch.linalg.inv(truth)
    equal(fisher.diagonal(), inverse.diagonal())
    equal(fisher.solve(v), inverse @ v)
    equal(fisher.times(v), truth @ v)
    index = torch.randperm(d, generator=toy.generator())[: max(1, d // 2)]
    equal(fisher.submatrix(index), inverse[index][:, index])


@pytest.mark.parametrize(("m", "d"), [(6, 15), (15, 6)])
def test_equals_the_textbook_recursion(m, d):
    rows, v = problem(m, d)
    textbook = reference.recursive_inverse(rows, 1e-3)
    fisher = BlockFisher(rows, 1e-3)
    equal(fisher.diagonal(), textbook.diagonal(), 1e-10)
    equal(fisher.solve(v), textbook @ v, 1e-10)


def test_float32_rows_lose_nothing_beyond_their_own_rounding():
    rows, v = problem(40, 300, dtype=torch.float32)
    exact = reference.recursive_inverse(rows.double(), 1e-5)
    fisher = BlockFisher(rows, 1e-5)
    equal(fisher.diagonal(), exact.diagonal(), 1e-5)
    equal(fisher.solve(v), exact @ v, 1e-5)


@pytest.mark.parametrize("turn", [0, 1])
def test_its_turn_says_which_process_factorises_a_block(monkeypatch, turn):
    """Of two processes, each with one of two blocks; what they computed adds up to the whole."""
    rows, v = problem(5, 8)
    whole = BlockFisher(rows, 1e-3, 4).solve(v)
    monkeypatch.setattr("common.curvature.blocks.WORK_ENTRIES", 1)
    monkeypatch.setattr("common.system.distributed.world", lambda: 2)
    for rank in (0, 1):
        monkeypatch.setattr("common.system.distributed.rank", lambda rank=rank: rank)
        part = BlockFisher(rows, 1e-3, 4, turn=turn).solve(v)
        mine = slice(0, 4) if rank == turn else slice(4, 8)
        equal(part[mine], whole[mine])
        assert part.count_nonzero() == 4


def test_groups_of_blocks_are_only_a_matter_of_memory(monkeypatch):
    rows, v = problem(5, 23)
    whole = BlockFisher(rows, 1e-3, 4)
    expected = whole.diagonal(), whole.solve(v), whole.joint(v, v > 0)
    monkeypatch.setattr("common.curvature.blocks.WORK_ENTRIES", 1)
    monkeypatch.setattr("common.curvature.blocks.STRIP", 2)
    for whole in (
        BlockFisher(rows, 1e-3, 4),
        BlockFisher(rows[:3], 1e-3, 4),
        BlockFisher(rows, 1e-3),
    ):
        again = torch.linalg.inv(reference.damped_fisher(whole.rows, 1e-3, whole.chunk))
        equal(whole.diagonal(), again.diagonal())
    whole = BlockFisher(rows, 1e-3, 4)
    for a, b in zip((whole.diagonal(), whole.solve(v), whole.joint(v, v > 0)), expected):
        equal(a, b, 1e-12)


@pytest.mark.parametrize(("m", "d", "chunk"), SHAPES)
def test_joint_update_solves_the_constrained_quadratic(m, d, chunk):
    rows, w = problem(m, d)
    pruned = torch.rand(d, generator=toy.generator(3)) < 0.5
    delta, predicted = obs.update(w, BlockFisher(rows, 1e-3, chunk), pruned, "joint")
    truth, increase = reference.constrained_minimum(
        reference.damped_fisher(rows, 1e-3, chunk), w, pruned
    )
    equal(delta, truth)
    assert predicted == pytest.approx(increase, rel=1e-9)


@pytest.mark.parametrize("work", [40, 1 << 20])
@pytest.mark.parametrize("walk", [1, 3, 512])
@pytest.mark.parametrize(("m", "d", "chunk"), SHAPES)
def test_triangular_update_is_the_sequential_walk(m, d, chunk, walk, work, monkeypatch):
    """By the blocks' own walk, also of a block in tiles, and by solves alone."""
    monkeypatch.setattr(obs, "WALK", walk)
    monkeypatch.setattr(blocks, "WALK", walk)
    monkeypatch.setattr(blocks, "WORK_ENTRIES", work)
    rows, w = problem(m, d)
    pruned = torch.rand(d, generator=toy.generator(3)) < 0.6
    inverse = torch.linalg.inv(reference.damped_fisher(rows, 1e-2, chunk))
    scores = w**2 / (2 * inverse.diagonal())
    order = [q for q in scores.argsort().tolist() if pruned[q]]
    delta, predicted = obs.update(w, BlockFisher(rows, 1e-2, chunk), pruned, "triangular")
    truth = reference.sequential_walk(inverse, w, order)
    equal(delta, truth)
    assert predicted == pytest.approx(
        float(truth @ torch.linalg.inv(inverse) @ truth) / 2, rel=1e-8
    )
    curvature = BlockFisher(rows, 1e-2, chunk)
    order = torch.tensor(order)
    equal(curvature.walk(w, order), obs._walk(w, curvature, order))


@pytest.mark.parametrize(("m", "d", "chunk"), SHAPES)
def test_diagonal_update_is_the_masked_sum_of_single_updates(m, d, chunk):
    rows, w = problem(m, d)
    pruned = torch.rand(d, generator=toy.generator(3)) < 0.5
    inverse = torch.linalg.inv(reference.damped_fisher(rows, 1e-3, chunk))
    equal(
        obs.update(w, BlockFisher(rows, 1e-3, chunk), pruned, "diagonal")[0],
        reference.summed_single(inverse, w, pruned),
    )


@pytest.mark.parametrize("kind", obs.SOLVED)
def test_one_weight_is_the_classic_brain_surgeon(kind):
    """For a single weight the three agree, and the score is the predicted increase."""
    rows, w = problem(6, 9)
    fisher = BlockFisher(rows, 1e-3)
    pruned = torch.arange(9) == 4
    delta, predicted = obs.update(w, fisher, pruned, kind)
    truth, increase = reference.constrained_minimum(reference.damped_fisher(rows, 1e-3), w, pruned)
    equal(delta, truth)
    assert predicted == pytest.approx(increase, rel=1e-9)
    assert float(obs.score(w, fisher.diagonal())[4]) == pytest.approx(increase, rel=1e-9)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 8), st.integers(2, 10), st.integers(0, 2**31), st.sampled_from([1e-4, 1e-2, 1.0])
)
def test_joint_is_never_worse_than_the_others_which_remove_exactly(m, d, seed, damping):
    rows, w = problem(m, d, seed)
    pruned = torch.rand(d, generator=toy.generator(seed)) < 0.5
    fisher = BlockFisher(rows, damping)
    results = {kind: obs.update(w, fisher, pruned, kind) for kind in obs.UPDATES}
    for delta, predicted in results.values():
        assert torch.equal((w + delta)[pruned], torch.zeros(int(pruned.sum()), dtype=torch.float64))
        assert predicted >= results["joint"][1] * (1 - 1e-7)


def test_a_spec_knows_every_update():
    """It has their names without torch."""
    for kind in obs.UPDATES:
        assert Spec(update=kind).update == kind
    with pytest.raises(UserError, match="choose one of: " + ", ".join(obs.UPDATES)):
        Spec(update="no such")


def test_large_damping_ranks_by_magnitude_and_moves_nothing():
    rows, w = problem(6, 30)
    fisher = BlockFisher(rows, 1e9)
    scores = obs.score(w, fisher.diagonal())
    assert torch.equal(scores.argsort(), w.abs().argsort())
    delta, _ = obs.update(w, fisher, w.abs() < 0.5, "diagonal")
    assert float(delta[w.abs() >= 0.5].abs().max()) < 1e-8


def test_repeated_rows_and_dead_weights_stay_finite():
    rows = torch.zeros(5, 8, dtype=torch.float64)
    rows[:, :3] = 1.0
    w = torch.ones(8, dtype=torch.float64)
    for kind in obs.UPDATES:
        delta, predicted = obs.update(
            w, BlockFisher(rows, 1e-5), torch.tensor([True] * 4 + [False] * 4), kind
        )
        assert torch.isfinite(delta).all() and predicted >= 0


@pytest.mark.parametrize("kind", obs.UPDATES)
def test_kronecker_curvature_obeys_the_same_algebra(kind):
    g = toy.generator(5)
    a, b = (
        torch.randn(2, 9, 4, generator=g, dtype=torch.float64),
        torch.randn(2, 9, 3, generator=g, dtype=torch.float64),
    )
    inverse = KronInverse.of(Kron(a.mT @ a / 9, b.mT @ b / 9, 1), 1e-2)
    dense = torch.block_diag(*[torch.kron(G, A) for A, G in zip(inverse.A, inverse.G)])
    w = torch.randn(24, generator=g, dtype=torch.float64)
    pruned = torch.rand(24, generator=g) < 0.5
    delta, predicted = obs.update(w, inverse, pruned, kind)
    if kind == "joint":
        equal(delta, reference.constrained_minimum(dense, w, pruned)[0])
    elif kind == "diagonal":
        equal(delta, reference.summed_single(torch.linalg.inv(dense), w, pruned))
    elif kind == "none":
        assert torch.equal(delta, torch.where(pruned, -w, 0.0))
    else:
        scores = obs.score(w, torch.linalg.inv(dense).diagonal())
        equal(
            delta,
            reference.sequential_walk(
                torch.linalg.inv(dense), w, [q for q in scores.argsort().tolist() if pruned[q]]
            ),
        )
    assert predicted == pytest.approx(float(delta @ dense @ delta) / 2, rel=1e-9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"damping": 0.0}, "damping=0.0"),
        ({"damping": float("nan")}, "damping=nan"),
        ({"chunk": 0}, "chunk=0"),
        ({"rows": torch.zeros(0, 4)}, r"rows=\(0, 4\)"),
    ],
)
def test_bad_input_names_the_field(changes, message):
    with pytest.raises(UserError, match=message):
        BlockFisher(**{"rows": torch.ones(2, 4), "damping": 1e-3, "chunk": None} | changes)


def test_gradients_that_are_not_finite_name_the_layer():
    rows = torch.ones(2, 4)
    rows[0, 0] = float("inf")
    with pytest.raises(NumericalError, match="'conv1'"):
        BlockFisher(rows, 1e-3, name="conv1").diagonal()


def test_leverages_of_a_block_sum_to_its_directions_above_the_damping():
    """1 - λ [F̂⁻¹]_qq is the leverage of weight q: its sum is Σ e/(e + λ) over the Gram matrix's
    eigenvalues e, at most the number of rows, so that few rows in a large block leave the order of
    magnitudes whatever λ is."""
    rows = torch.randn(6, 200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    eigenvalues = torch.linalg.eigvalsh(rows @ rows.T / len(rows))
    for damping in (1e-9, 1e-2, 1.0, 1e3):
        leverage = 1 - damping * BlockFisher(rows, damping).diagonal()
        assert leverage.sum() == pytest.approx(
            float((eigenvalues / (eigenvalues + damping)).sum()), abs=1e-9
        )
        assert leverage.min() > -1e-9 and leverage.sum() <= 6 + 1e-9
