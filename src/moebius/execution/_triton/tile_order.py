"""Who computes what: assignments ordered by expert and cut into tiles, as indices alone."""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from moebius.core.routing import Selection


@dataclass(frozen=True)
class TileOrder:
    """Assignments ordered by expert (their places, P = A of them), and the same ordered by row (their slots).

    Dropped assignments come last in both orders and belong to no tile, no expert and no row. Nothing here is read on
    the host, and no length depends on the data.

    Arguments:
        order_P: the assignment at each place.
        row_P: its row.
        slot_P: its slot.
        place_E: where each expert's places begin, and at the end where the last one's stop.
        slot_T: where each row's slots begin, and at the end where the last one's stop.
        tile_N: first place, place past the last and expert of each tile of rows; empty tiles past the last used one.
    """

    order_P: Int[Tensor, " P"]
    row_P: Int[Tensor, " P"]
    slot_P: Int[Tensor, " P"]
    place_E: Int[Tensor, " _"]
    slot_T: Int[Tensor, " _"]
    tile_N: Int[Tensor, "N 3"]

    @property
    def tensors(self) -> list[Tensor]:
        """In the order in which an operator takes them."""
        return [self.order_P, self.row_P, self.slot_P, self.place_E, self.slot_T, self.tile_N]


def order_tiles(selection: Selection, rows: int, experts: int, block: int) -> TileOrder:
    """The plan for tiles of `block` rows, each of one expert.

    E experts with c_e rows fill Σ_e ⌈c_e / block⌉ ≤ ⌈A / block⌉ + E tiles: as many are made.

    Reference: Tan, Shen, Panda, Courville 2024, Scattered Mixture-of-Experts Implementation: indices are padded
    to whole tiles, tensors are not.
    """
    kept_A, device = selection.kept_A, selection.row_A.device
    expert_P, order_P = torch.where(kept_A, selection.expert_A, experts).int().sort(stable=True)
    row_S, by_row_S = torch.where(kept_A, selection.row_A, rows).int().sort(stable=True)
    count = len(order_P)
    slot_A = torch.empty_like(by_row_S).scatter(0, by_row_S, torch.arange(count, device=device))
    place_E = _begins(expert_P, experts)
    tiles_E = (place_E.diff() + block - 1).div(block, rounding_mode="floor")
    stop_E = tiles_E.cumsum(0)
    number_N = torch.arange(-(-count // block) + experts, device=device)
    # Tiles past the last used one count on from the last expert's, so that they begin where its rows stop or later.
    expert_N = torch.searchsorted(stop_E, number_N, right=True).clamp(max=experts - 1)
    first_N = place_E[expert_N] + block * (number_N - (stop_E - tiles_E)[expert_N])
    last_N = torch.minimum(first_N + block, place_E[expert_N + 1])
    return TileOrder(
        order_P.int(),
        selection.row_A[order_P].int(),
        slot_A[order_P].int(),
        place_E.int(),
        _begins(row_S, rows).int(),
        torch.stack([first_N, last_N, expert_N], 1).int(),
    )


def _begins(sorted_values: Int[Tensor, " A"], values: int) -> Int[Tensor, " _"]:
    """Where each of so many values begins among sorted ones, and where the last one stops."""
    return torch.searchsorted(sorted_values, torch.arange(values + 1, device=sorted_values.device, dtype=torch.int32))
