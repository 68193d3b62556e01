import torch

from moebius.lab.illnesses._intervals import list_experts, mean_interval, percent, share_interval


def test_covers_the_mean_in_99_of_100_draws():
    random = torch.Generator().manual_seed(0)
    draws = torch.randn(2000, 100, generator=random)
    covered = sum(interval.low <= 0 <= interval.high for interval in map(mean_interval, draws))
    assert 0.98 <= covered / 2000 <= 0.998


def test_covers_a_small_share():
    random = torch.Generator().manual_seed(0)
    successes = (torch.rand(2000, 300, generator=random) < 0.02).sum(1).tolist()
    covered = sum(interval.low <= 0.02 <= interval.high for interval in (share_interval(n, 300) for n in successes))
    assert covered / 2000 >= 0.99


def test_more_comparisons_make_wider_intervals():
    values = torch.randn(100, generator=torch.Generator().manual_seed(0))
    assert mean_interval(values, 10).high > mean_interval(values).high
    assert share_interval(3, 100, 10).high > share_interval(3, 100).high


def test_words():
    assert list_experts([4]) == "expert 4"
    assert list_experts([0, 3, 5]) == "experts 0, 3 and 5"
    assert list_experts([*range(10)]) == "experts 0, 1, 2 and 7 more"
    assert [percent(value) for value in (0, 0.1234, 0.0123)] == ["0 %", "12 %", "1.2 %"]
