"""The planted faults fit the code; `make mutants` plants them."""

from collections import Counter

import pytest

from tests.trust.mutants import MUTANTS, ROOT, normal


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: f"{m.file}: {m.old[:40]}")
def test_the_fault_fits_exactly_one_place(mutant):
    text = normal((ROOT / mutant.file).read_text())
    assert text.count(mutant.old) == 1 and mutant.old != mutant.new
    compile(text.replace(mutant.old, mutant.new), mutant.file, "exec")
    assert (ROOT / mutant.tests.split()[0]).is_file()


def test_there_are_enough_and_of_every_room():
    rooms = Counter(mutant.file.partition("/")[0] for mutant in MUTANTS)
    assert len(MUTANTS) >= 60 and rooms["common"] >= 40 and min(rooms.values()) >= 2
    assert len({(m.file, m.old, m.new) for m in MUTANTS}) == len(MUTANTS)
