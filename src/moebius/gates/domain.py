"""The gate that sends each row to the expert of its domain."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from moebius.core.transforms import is_vmapped
from moebius.kit.arguments import positive_integer
from moebius.kit.errors import ArgumentError


class Domain(nn.Module):
    """Sends every row to the expert of its domain, which the context gives: a gate set by hand, without parameters.

    score_e = 0 where e is the row's domain, else −∞

    Arguments:
        domains: number of domains of the data.
        experts: E, number of scores per row; one expert per domain.

    Shapes: x (T, …) and context["domain"] integers (T,) from 0 to E − 1 → (T, E).

    Raises:
        ArgumentError: domains and experts differ; the context has no domains, not one per row, domains that are not
            whole numbers, or a domain without an expert. On a GPU torch itself stops at such a domain, as at any index
            out of range: reading the numbers would let every step wait for the GPU.

    Example:
        >>> import torch
        >>> Domain(domains=2, experts=2)(torch.ones(2, 64), {"domain": torch.tensor([1, 0])})
        tensor([[-inf, 0.],
                [0., -inf]])

    Reference: study 1's `predesigned`: weights [1, 0] for the first data set and [0, 1] for the second.
    """

    context_keys = ("domain",)  # the entries of the context that it requires

    def __init__(self, domains: int, experts: int):
        super().__init__()
        self.domains, self.experts = positive_integer("domains", domains), positive_integer("experts", experts)
        if domains != experts:
            rule = f"the domain gate needs one expert per domain, and the data has {domains}"
            raise ArgumentError("experts", rule, experts, f"take {domains} experts, or a learned gate such as linear")

    def forward(self, x: Float[Tensor, "T ..."], context: Mapping[str, Any] | None = None) -> Float[Tensor, "T E"]:
        """The scores of each row: 0 for the expert of its domain, else −∞."""
        domain = None if context is None else context.get("domain")
        if domain is None:
            fix = "model(x, context={'domain': domain}), with the index of each row's domain"
            raise ArgumentError("context", "the domain gate needs each row's domain", context, fix)
        self._check(domain, len(x))
        is_own_domain = torch.eye(self.experts, dtype=torch.bool, device=domain.device)
        return torch.where(is_own_domain, x.new_zeros(()), -torch.inf).index_select(0, domain.long())

    def _check(self, domain: Tensor, rows: int) -> None:
        if domain.shape != (rows,):
            rule, fix = f"needs one domain for each of {rows} rows", f"a tensor of shape ({rows},)"
            raise ArgumentError("context['domain']", rule, tuple(domain.shape), fix)
        if domain.is_floating_point() or domain.dtype == torch.bool:
            raise ArgumentError("context['domain']", "needs whole numbers", domain.dtype, "domain.long()")
        # On the meta device there are shapes and no values, and under vmap no branch may depend on values.
        if rows and not domain.is_meta and not domain.is_cuda and not is_vmapped(domain):
            lowest, highest = (int(extreme) for extreme in domain.aminmax())
            if lowest < 0 or highest >= self.experts:
                invalid = lowest if lowest < 0 else highest
                rule = f"needs numbers from 0 to {self.experts - 1}"
                fix = (
                    "domains numbered from 0" if lowest < 0 else f"Domain(domains={highest + 1}, experts={highest + 1})"
                )
                raise ArgumentError("context['domain']", rule, invalid, fix)
