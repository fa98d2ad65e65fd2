"""The rules of NAP's claims: a dense control that has not run shows nothing, and numbers are read
off where they stand.
"""

import pytest

from common.cells.record import Record
from figures import nap_claims
from figures.evidence import HOLDS, PART, Missing, Number


def test_a_missing_control_is_not_a_claim_that_holds(monkeypatch):
    """VGG-16's and ResNet-20's channels lose less than the paper's against the network they came
    from; that alone is half of it.
    """

    def measured(table, pattern):
        if "dense-tuned" in pattern and missing:
            raise Missing(pattern)
        return Number([20.0 if "dense-tuned" in pattern else 21.0], "made up")

    monkeypatch.setattr(nap_claims, "error", measured)
    missing = True
    assert (
        nap_claims.beyond_control("Table 1", "vgg16-5.4x-nap-long", "vgg16-dense-tuned-long")[0]
        is None
    )
    assert nap_claims.nap_channels()[0] == PART
    missing = False
    assert nap_claims.beyond_control("Table 1", "vgg16-5.4x-nap-long", "vgg16-dense-tuned-long")[
        0
    ] == pytest.approx(1.0)
    assert nap_claims.nap_channels()[0] == HOLDS


def test_accuracy_is_read_off_between_two_prunings():
    record = next(iter(nap_claims.pruned("figure-6", "cifarnet-T10")))
    by_amount = {entry["amount"]: entry["tuned"] for entry in record.trajectory if "tuned" in entry}
    assert nap_claims._at(record, 0.75) == pytest.approx(by_amount[0.75])
    assert nap_claims._at(record, 0.8125) == pytest.approx((by_amount[0.75] + by_amount[0.875]) / 2)
    with pytest.raises(Missing):
        nap_claims._at(record, 0.99)
    assert isinstance(record, Record)


def test_ratios_are_near_within_a_factor_and_not_beyond():
    said = {"fc1": 0.73, "fc3": 39.4}
    assert nap_claims._near({"fc1": 0.9, "fc3": 30.0}, said) and not nap_claims._near(
        {"fc1": 0.9, "fc3": 27.0}, said
    )
    assert nap_claims._apart({"fc1": 0.73 * 2, "fc3": 39.4 / 2}, said) == pytest.approx(2)
