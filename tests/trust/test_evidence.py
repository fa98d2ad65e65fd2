"""What is kept of a long check: what it said, and of what code, where and how it ended."""

import re

import pytest

from common.system import machine
from tests.trust import evidence


@pytest.mark.parametrize(
    ("code", "status"),
    [("print('a' * 3); print('all well')", 0), ("print('one fault'); raise SystemExit(3)", 3)],
)
def test_a_check_is_kept_with_its_head(code, status, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(machine, "code", lambda: ("c0ffee", True))
    assert evidence.keep("try", ("-c", code), tmp_path) == status
    head, said = (tmp_path / "try.txt").read_text().split("\n\n")
    assert re.fullmatch(
        r"check:   python -c .*\ndate:    \d{4}-\d\d-\d\d\ncommit:  c0ffee with "
        r"changes\nmachine: "
        rf"{machine.fingerprint()}, \d+ cores\nended:   with status {status} after 0.\d minutes",
        head,
    )
    assert said == ("aaa\nall well\n" if status == 0 else "one fault\n") == capsys.readouterr().out


def test_a_long_check_keeps_its_end_and_no_path_of_the_machine(tmp_path):
    code = f"[print(i, {str(evidence.ROOT)!r}) for i in range({evidence.KEPT + 50})]"
    assert evidence.keep("long", ("-c", code), tmp_path) == 0
    text = (tmp_path / "long.txt").read_text()
    said = text.split("\n\n")[1].splitlines()
    assert (
        said[0] == "50 ."
        and len(said) == evidence.KEPT
        and str(evidence.ROOT) not in "\n".join(said)
    )


def test_a_failed_check_fails_the_command(monkeypatch, tmp_path):
    monkeypatch.setattr(
        evidence, "CHECKS", {"good": ("-c", ""), "bad": ("-c", "raise SystemExit(1)")}
    )
    monkeypatch.setattr(evidence, "FOLDER", tmp_path)
    monkeypatch.setattr(evidence.keep, "__defaults__", (tmp_path,))
    assert evidence.main(["good"]) == 0 and evidence.main(["bad", "good"]) == 1
    assert {p.name for p in tmp_path.iterdir()} == {"good.txt", "bad.txt"}
    assert evidence.main(["unknown"]) == 2


def test_the_page_says_what_the_checks_said_last():
    """Each kept check ended well, of a clean tree, and the page's numbers of it are its last
    line's.
    """
    text = " ".join((evidence.ROOT / "docs" / "trust.md").read_text().split())
    for name in ("crash", "oracles"):
        kept = (evidence.FOLDER / f"{name}.txt").read_text()
        assert "ended:   with status 0 " in kept and re.search(
            r"^commit:  [0-9a-f]{40}$", kept, re.M
        ), name
    last = (evidence.FOLDER / "crash.txt").read_text().splitlines()[-1]
    told = r"(\d+) kills and (\d+) Ctrl-C \(slowest ([\d.]+) s\) in (\d+) runs: 0 problems"
    kills, stops, slowest, runs = re.fullmatch(told, last).groups()
    assert (
        f"{kills} kills and {stops} Ctrl-C ({float(slowest):.1f} s to stop) in {runs} runs" in text
    )
    formulas = re.fullmatch(
        r"(\d+) formulas, 0 failures",
        (evidence.FOLDER / "oracles.txt").read_text().splitlines()[-1],
    )[1]
    assert f"slow dense twin: {formulas} of them" in text
