"""The batch and sample terms of study 2: what they are worth and how they relate."""

from math import log

import pytest
import torch

from moebius.losses.batch_entropy import batch_entropy
from moebius.losses.batch_variance import batch_variance
from moebius.losses.batch_variance_literal import batch_variance_literal
from moebius.losses.sample_entropy import sample_entropy
from moebius.losses.sample_variance import sample_variance
from moebius.losses.sample_variance_literal import sample_variance_literal
from moebius.routers.soft import Soft

E = 4


def routing(probs):
    return Soft()(torch.tensor(probs, dtype=torch.float64).log())


EACH_ITS_OWN = torch.eye(E).tolist()
UNDECIDED = [[0.25] * E] * E

# Two rows: mean (.5, .5); entropies H(.75, .25) and H(.25, .75); variances ((.75 − .5)² + (.25 − .5)²) / 2 = .0625.
BALANCED = [[0.75, 0.25], [0.25, 0.75]]
# Mean (.75, .25); entropies 0 and ln 2; variances .25 and 0.
UNEQUAL = [[1.0, 0.0], [0.5, 0.5]]
H = 0.75 * log(4 / 3) + 0.25 * log(4)


@pytest.mark.parametrize(
    ("loss", "balanced", "unequal"),
    [
        (batch_entropy, -log(2), -H),
        (sample_entropy, H, log(2) / 2),
        (batch_variance, 0.0, 0.0625),
        (sample_variance, -0.0625, -0.125),
        (batch_variance_literal, 0.0, -0.0625),
        (sample_variance_literal, 0.0625, 0.125),
    ],
)
def test_worked(loss, balanced, unequal):
    assert loss(routing(BALANCED)).item() == pytest.approx(balanced, abs=1e-12)
    assert loss(routing(UNEQUAL)).item() == pytest.approx(unequal, abs=1e-12)


def test_the_literal_sign_rewards_collapse_where_the_intended_one_punishes_it():
    collapsed, spread = routing([[0.99, 0.01]] * 4), routing(BALANCED)
    assert batch_variance(collapsed) > batch_variance(spread)
    assert batch_entropy(collapsed) > batch_entropy(spread)
    assert batch_variance_literal(collapsed) < batch_variance_literal(spread)


def test_with_one_row_batch_and_sample_terms_are_each_others_negative():
    single_row = routing([[0.7, 0.2, 0.1]])
    torch.testing.assert_close(batch_entropy(single_row), -sample_entropy(single_row))
    torch.testing.assert_close(batch_variance(single_row), -sample_variance(single_row))


def test_specialised_rows_beat_undecided_ones_by_the_sample_term_alone():
    # The difference of the two entropy terms is the mutual information of row and expert, ln E at most.
    best, none = routing(EACH_ITS_OWN), routing(UNDECIDED)
    assert (batch_entropy(best) + sample_entropy(best)).item() == pytest.approx(-log(E))
    assert (batch_entropy(none) + sample_entropy(none)).item() == pytest.approx(0.0, abs=1e-12)
