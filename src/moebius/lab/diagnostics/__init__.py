"""Diagnostics: gate weights and labels in, tidy tables out.

One convention: rows come as numpy arrays (`weights` of shape (T, E), whole-number labels or groups of shape (T,)) with
the names of the groups; a pandas frame comes back with one observation per row and no index of meaning. Experts are
numbered from 0. A Routing's weights go in as `routing.weights.float().numpy(force=True)`.
"""

from moebius.kit.registry import open_room

open_room(__name__)
