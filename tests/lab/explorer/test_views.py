"""What the maps show: experts, groups, positions."""

import numpy as np
import torch

import moebius as mb
from moebius.lab.explorer import explore_model
from moebius.lab.explorer.expert_summary import COLOURS, expert_colours, summarise_experts
from moebius.lab.explorer.group_map import group_cells
from moebius.lab.explorer.projection import project_rows
from moebius.lab.explorer.row_table import GateColumns


def test_cells_count_the_rows_that_a_click_opens(pictures):
    from moebius.lab.explorer.row_query import RowQuery

    lines = group_cells(pictures.table, "gate")
    assert [name for name, _, _ in lines] == ["ant", "bee", "<cow>"]
    for _, count, cells in lines:
        assert sum(cell.rows for cell in cells) == count
        assert abs(sum(cell.weight for cell in cells) - 1) < 1e-5
        for cell in cells:
            places = RowQuery(group=cell.group, expert=cell.expert).places(pictures.table)
            assert len(places) == cell.rows


def test_experts_are_summed_up(pictures):
    table = pictures.table
    first = summarise_experts(table, "gate", {"experts.0": "edges"})[0]
    won = table.gates["gate"].top == 0
    assert (first.name, first.rows) == ("edges", won.sum())
    assert abs(first.right - table.frame["right"][won].mean()) < 1e-6
    assert abs(first.loss - table.gates["gate"].losses[:, 0].mean()) < 1e-5


def test_of_many_experts_those_that_win_most_have_their_colour(pictures):
    weights = np.zeros((40, 30), np.float32)
    weights[np.arange(40), np.repeat(np.arange(10, 30), 2)] = 1
    colours = expert_colours(GateColumns(_place(30), weights, weights, None, True))
    assert sorted(colours[10:21]) == list(range(COLOURS - 1))
    assert set(colours[:10]) == {COLOURS - 1}


def _place(experts):
    moe = mb.Mixture(mb.gates.Linear(2, experts), [mb.experts.Linear(2, 2) for _ in range(experts)])
    from moebius.lab.training.gate_places import find_gates

    return find_gates(moe)[0]


def test_the_map_keeps_like_rows_together(pictures):
    scores = np.repeat(np.eye(3, dtype=np.float32) * 0.9 + 0.05, 20, 0)
    scores /= scores.sum(1, keepdims=True)
    drawn = project_rows(GateColumns(_place(3), scores, scores, None, True), np.zeros(60))
    assert drawn.points.min() >= 0
    assert drawn.points.max() <= 1
    centres = drawn.points.reshape(3, 20, 2).mean(1)
    spread = np.abs(drawn.points.reshape(3, 20, 2) - centres[:, None]).max()
    distances = [np.linalg.norm(centres[i] - centres[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert min(distances) > 5 * spread > 0
    assert len(np.unique(drawn.points, axis=0)) == 60


def test_two_experts_are_drawn_over_the_rank_of_the_loss():
    first = np.linspace(0.1, 0.9, 9, dtype=np.float32)
    scores = np.stack([first, 1 - first], 1)
    losses = np.arange(9, dtype=float)[::-1].copy()
    drawn = project_rows(GateColumns(_place(2), scores, scores, None, True), losses)
    assert drawn.titles[1] == "rank by loss"
    assert (np.diff(drawn.points[:, 1]) < 0).all()
    assert (np.diff(drawn.points[:, 0]) != 0).all()


def test_a_map_of_equal_scores_or_one_row_is_drawn():
    scores = np.full((5, 3), 1 / 3, np.float32)
    for rows in (5, 1):
        drawn = project_rows(GateColumns(_place(3), scores[:rows], scores[:rows], None, True), np.zeros(rows))
        assert np.isfinite(drawn.points).all()


def test_a_model_without_a_gate_has_rows_alone(plain):
    page = plain.page({})
    assert 'id="tab-map"' not in page
    assert page.count('<a class="card') == 20
    assert "No gate chose among experts here." in plain.row(0)


def test_a_gate_of_many_experts_is_not_sent_everywhere_unasked():
    torch.manual_seed(0)
    moe = mb.Mixture(mb.gates.Linear(4, 130), [mb.experts.Linear(4, 3) for _ in range(130)], mb.routers.TopK(2))
    explorer = explore_model(moe, (torch.randn(6, 4), torch.randint(3, (6,))))
    assert "takes 130 passes" in explorer.row(0)
    assert explorer.table.gates["gate"].losses is None
    assert 'id="panel-map"' in explorer.page({})
