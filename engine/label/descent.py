"""How the weights of a network move down a gradient: filters along orthogonal directions, all else straight down.

Plain gradients of a filter bank are nearly of low rank: a few directions take every step, and many steps are needed
until the others have their turn. `Descent` makes all directions of an update equally long (Muon: Jordan et al. 2024),
by an iteration of a few products of matrices (Newton and Schulz) that has no need of exact singular values. Filter
banks keep a fixed norm, so a learning rate means the same for all of them and at any time. Heads, norms and biases
descend with Nesterov momentum. On a network from scratch with 1,000 labels of cifar10 and 480 steps of 128 images it
ends at 65.5 % where Nesterov momentum alone ends at 60.0 (one seed each), for 8 % more time a step. Many tensors take
one call, as in torch's own optimizers (`_foreach`), and a step asks nothing of the CPU, so that a GPU can record it.
Knows nothing of schedules or losses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import Tensor, nn

#: Momentum of filters: directions are fresh, so little of the past is kept. Of everything else.
_FILTER_MOMENTUM: Final = 0.6
_MOMENTUM: Final = 0.9
#: An odd polynomial that takes singular values of (0, 1] near 1 (within 0.7..1.2) in a few rounds.
_QUINTIC: Final = (3.4445, -4.7750, 2.0315)
_ROUNDS: Final = 3


class Descent(torch.optim.Optimizer):
    """Moves the trained parameters of a network. Set the rates of a step first, by `at`.

    rate: of filters, the length of a step along each direction where a filter bank of m filters has norm sqrt(m).
    other_rate: of heads, norms and biases. weight_decay: of heads. dtype: that directions are computed in. gently:
    shares of both rates for parameters whose names begin so.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        rate: float,
        other_rate: float,
        weight_decay: float,
        dtype: torch.dtype,
        gently: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        by_share: dict[float, list[Tensor]] = {1.0: []}
        for name, parameter in net.named_parameters():
            if parameter.requires_grad:
                share = next((share for start, share in gently.items() if name.startswith(start)), 1.0)
                by_share.setdefault(share, []).append(parameter)
        groups: list[dict[str, Any]] = []
        for share, trained in by_share.items():
            filters = [each for each in trained if each.ndim > 2]
            of_heads = [each for each in trained if each.ndim == 2]
            others = [each for each in trained if each.ndim < 2]
            groups += [
                {"params": filters, "peak": share * rate, "orthogonal": True, "decay": 0.0},
                {"params": of_heads, "peak": share * other_rate, "decay": weight_decay},
                {"params": others, "peak": share * other_rate, "decay": 0.0},
            ]
        self._dtype = dtype
        super().__init__([group for group in groups if group["params"]], {"orthogonal": False})
        moved = [parameter for group in self.param_groups for parameter in group["params"]]
        self._share = torch.ones((), device=moved[0].device if moved else None)
        for parameter in moved:
            self.state[parameter]["momentum"] = torch.zeros_like(parameter)

    def at(self, share: float) -> None:
        """The next steps go at this share of the peak rates."""
        self._share.fill_(share)

    @property
    def momenta(self) -> list[Tensor]:
        """Of all parameters, in their order; to be read, and to be filled."""
        moved = (parameter for group in self.param_groups for parameter in group["params"])
        return [self.state[parameter]["momentum"] for parameter in moved]

    def forget(self) -> None:
        """All momentum is gone."""
        torch._foreach_zero_(self.momenta)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None
        for group in self.param_groups:
            trained = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not trained:
                continue
            gradients = tuple(parameter.grad for parameter in trained)
            if group["orthogonal"]:
                updates = self._ahead(trained, gradients, _FILTER_MOMENTUM)
                updates = tuple(orthogonalised(each.flatten(1), dtype=self._dtype).view_as(each) for each in updates)
                torch._foreach_mul_(trained, [_to_fixed_norm(parameter) for parameter in trained])
            else:
                gradients = torch._foreach_add(gradients, trained, alpha=group["decay"])
                updates = self._ahead(trained, gradients, _MOMENTUM)
            torch._foreach_sub_(trained, torch._foreach_mul(updates, group["peak"] * self._share))

    def _ahead(self, trained: list[Tensor], gradients: tuple[Tensor, ...], momentum: float) -> tuple[Tensor, ...]:
        """The gradients with Nesterov momentum; remembers it."""
        before = [self.state[parameter]["momentum"] for parameter in trained]
        torch._foreach_mul_(before, momentum)
        torch._foreach_add_(before, gradients)
        return torch._foreach_add(gradients, before, alpha=momentum)


def _to_fixed_norm(bank: Tensor) -> Tensor:
    """What takes a bank of m filters to the norm sqrt(m)."""
    factor: Tensor = len(bank) ** 0.5 / bank.norm().clamp(min=1e-12)
    return factor


def orthogonalised(matrix: Tensor, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """(m, n) -> (m, n) float32 with the same singular vectors and singular values near 1. dtype: to compute in.

    Directions with less than about a hundredth of the whole come out shorter. Zeros stay zeros.
    """
    a, b, c = _QUINTIC
    x = matrix / matrix.norm().clamp(min=1e-12)
    x = x.to(dtype)
    wide = x if len(x) <= x.shape[1] else x.T
    for _ in range(_ROUNDS):
        square = wide @ wide.T
        polynomial = torch.addmm(square, square, square, beta=b, alpha=c)
        wide = torch.addmm(wide, polynomial, wide, beta=a)
    result: Tensor = (wide if len(x) <= x.shape[1] else wide.T).float()
    return result
