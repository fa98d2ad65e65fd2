"""NAP's figures and tables draw from the committed records; a missing one is one line that says how
to make it.
"""

import pytest

from common.cells.errors import UserError
from common.cells.library import read_all
from figures import nap_channels, nap_fig4, nap_fig5, nap_fig7, nap_options, nap_records, nap_table3

SCRIPTS = (nap_channels, nap_fig4, nap_fig5, nap_fig7, nap_options, nap_table3)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.__name__)
def test_it_draws_or_says_what_to_run(script):
    try:
        drawn = script.figure()
    except UserError as error:
        assert "python -m nap." in str(error)
        return
    assert any(ax.has_data() for ax in drawn.axes)


def test_the_table_has_every_fine_tuned_cell_and_the_papers_rows():
    text = nap_table3.table()
    cells = {
        r.cell.rsplit("-seed", 1)[0]
        for r in read_all(nap_records.RESULTS)
        if r.table == "table-3" and r.stage == "finetune"
    }
    assert all(f"ours: {cell.split('-', 1)[1]}" in text for cell in cells)
    assert text.count("| paper: ") == 14
    assert "| LeNet-300-100 | fc1 | 8 | 1.8 | 0.73 |" in text
