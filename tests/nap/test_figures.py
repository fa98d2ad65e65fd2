"""NAP's tables say what the committed records say."""

from common.cells.library import read_all
from figures import nap
from figures.frame import results


def test_the_table_has_every_fine_tuned_cell_and_the_papers_rows():
    text = nap.table3()
    cells = {
        r.cell.rsplit("-seed", 1)[0]
        for r in read_all(results("nap"))
        if r.table == "table-3" and r.stage == "finetune"
    }
    assert cells and all(f"ours: {cell.split('-', 1)[1]}" in text for cell in cells)
    assert text.count("| paper: ") == 14
    assert "| LeNet-300-100 | fc1 | 8 | 1.8 | 0.73 |" in text
