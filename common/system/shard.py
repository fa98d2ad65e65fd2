"""A list of cells shared out among processes, on one machine or on several that see one output
folder.

Shard i of n begins at the i-th part of the list and then goes through the rest, so that what a
killed or slow shard has not begun is done by the others. A cell belongs to the process that holds
the lock on its folder (running.claim); a finished cell is only read. No cell is computed twice at
once, and running any shard again completes the list.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from common.cells.errors import Busy, UserError

Cell = TypeVar("Cell")
Result = TypeVar("Result")
log = logging.getLogger(__name__)


def parse(text: str) -> tuple[int, int]:
    """ "i/n", counted from 1, as (i, n)."""
    i, slash, n = text.partition("/")
    if not (slash and i.isdecimal() and n.isdecimal() and 1 <= int(i) <= int(n)):
        raise UserError(
            "shard", text, "cannot be read", "write i/n with 1 <= i <= n, for example 2/8"
        )
    return int(i), int(n)


def order(count: int, shard: str) -> list[int]:
    """Indices 0 .. count-1 in the order in which a shard goes through them; neighbours stay
    together.
    """
    i, n = parse(shard)
    first = (i - 1) * count // n
    return [*range(first, count), *range(first)]


def work(
    cells: Sequence[Cell], run: Callable[[Cell], Result], shard: str = "1/1"
) -> Iterator[tuple[int, Result]]:
    """(index, result) of every cell that this process computes or finds finished. A cell in other
    hands is tried once more at the end, and then left to them. With a single shard, as without any,
    a cell in other hands is an error."""
    alone = parse(shard)[1] == 1
    taken = []
    for index in order(len(cells), shard):
        try:
            yield index, run(cells[index])
        except Busy:
            if alone:
                raise
            taken.append(index)
    left = 0
    for index in taken:
        try:
            yield index, run(cells[index])
        except Busy:
            left += 1
    if left:
        log.info("%d of %d cells are being computed by other processes", left, len(cells))
