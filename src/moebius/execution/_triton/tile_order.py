"""The plan of the kernels: indices of the assignments ordered by expert and cut into tiles, without moving rows."""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from moebius.core.routing import Selection


@dataclass(frozen=True)
class TileOrder:
    """The assignments ordered by expert and ordered by row.

    A place is a position in the order by expert, a slot a position in the order by row; there are P = A of each.
    Dropped assignments come last in both orders and belong to no tile, no expert and no row. The host reads none of
    these tensors, and no length depends on the data.

    Arguments:
        order_P: the assignment at each place.
        row_P: the row of that assignment.
        slot_P: the slot of that assignment.
        place_E: (E + 1), the first place of each expert, then the end of the last expert's places.
        slot_T: (T + 1), the first slot of each row, then the end of the last row's slots.
        tile_N: first place, end of the places and expert of each tile; tiles after the last used one are empty.
    """

    order_P: Int[Tensor, " P"]
    row_P: Int[Tensor, " P"]
    slot_P: Int[Tensor, " P"]
    place_E: Int[Tensor, " _"]
    slot_T: Int[Tensor, " _"]
    tile_N: Int[Tensor, "N 3"]

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors in the order in which the operators take them."""
        return [self.order_P, self.row_P, self.slot_P, self.place_E, self.slot_T, self.tile_N]


def order_tiles(selection: Selection, rows: int, experts: int, block: int) -> TileOrder:
    """The plan for tiles of `block` rows, each with rows of a single expert.

    E experts with c_e rows fill Σ_e ⌈c_e / block⌉ ≤ ⌈A / block⌉ + E tiles; the plan has that upper bound of tiles.

    Reference: Tan, Shen, Panda, Courville 2024, Scattered Mixture-of-Experts Implementation: indices are padded
    to whole tiles, tensors are not.
    """
    kept_A, device = selection.kept_A, selection.row_A.device
    expert_P, order_P = torch.where(kept_A, selection.expert_A, experts).int().sort(stable=True)
    row_S, assignment_S = torch.where(kept_A, selection.row_A, rows).int().sort(stable=True)
    count = len(order_P)
    slot_A = torch.empty_like(assignment_S).scatter(0, assignment_S, torch.arange(count, device=device))
    place_E = _first_indices(expert_P, experts)
    tiles_E = (place_E.diff() + block - 1).div(block, rounding_mode="floor")
    tile_end_E = tiles_E.cumsum(0)
    number_N = torch.arange(-(-count // block) + experts, device=device)
    # Tiles after the last used one continue those of the last expert, so that they begin at or after its last row.
    expert_N = torch.searchsorted(tile_end_E, number_N, right=True).clamp(max=experts - 1)
    first_N = place_E[expert_N] + block * (number_N - (tile_end_E - tiles_E)[expert_N])
    end_N = torch.minimum(first_N + block, place_E[expert_N + 1])
    return TileOrder(
        order_P.int(),
        selection.row_A[order_P].int(),
        slot_A[order_P].int(),
        place_E.int(),
        _first_indices(row_S, rows).int(),
        torch.stack([first_N, end_N, expert_N], 1).int(),
    )


def _first_indices(sorted_values: Int[Tensor, " A"], values: int) -> Int[Tensor, " _"]:
    """The first index of each of the numbers 0 … values − 1 among sorted ones, then the end of the last number's."""
    return torch.searchsorted(sorted_values, torch.arange(values + 1, device=sorted_values.device, dtype=torch.int32))
