"""Latency side by side."""

import time

import pytest
import torch

from common.cells.errors import UserError
from common.nets.latency import medians


def test_medians_tell_a_slow_call_from_a_fast_one_and_take_turns():
    calls = []

    def run(name, seconds):
        def call(x):
            calls.append(name)
            assert torch.is_inference_mode_enabled()
            time.sleep(seconds)

        return call

    found = medians(
        {"fast": run("fast", 0.001), "slow": run("slow", 0.01)}, torch.zeros(1), rounds=5, warmup=1
    )
    assert found["slow"] > 0.009 > found["fast"] > 0.0009
    assert calls == ["fast", "slow"] + ["fast", "slow"] * 5


def test_a_network_in_training_mode_and_no_rounds_are_refused():
    with pytest.raises(UserError, match="training mode"):
        medians({"net": torch.nn.Linear(2, 2)}, torch.zeros(1, 2))
    with pytest.raises(UserError, match="rounds=0"):
        medians({}, torch.zeros(1), rounds=0)
