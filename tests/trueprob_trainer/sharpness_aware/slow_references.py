"""The papers' algorithms, one parameter and one formula at a time, without torch.optim.

Written from the papers, not from the package: no code of trueprob_trainer.sharpness_aware is used.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from tests.trueprob_trainer.small_problems import DECAYS, MOMENTUM, RADII, RATE, Problem

Named = dict[str, Tensor]


def part_of(name: str) -> str:
    return "body" if name.startswith("body") else "head"


class Slow:
    """A network's weights by name, with SGD or Adam written out."""

    def __init__(self, problem: Problem, base: str = "sgd") -> None:
        self.network = problem.build()
        self.loss = problem.loss
        self.base = base
        self.w: Named = {n: p.detach().clone() for n, p in self.network.named_parameters()}
        self.v: Named = {}
        self.square: Named = {}
        self.t = 0

    def logits(self, w: Named, images: Tensor) -> tuple[Tensor, Named]:
        used = {n: x.clone().requires_grad_() for n, x in w.items() if n != "unused"}
        return torch.func.functional_call(self.network, used, (images,)), used

    def gradient(
        self, w: Named, batch: tuple[Tensor, Tensor], weigh: Callable[[Tensor, Tensor], Tensor]
    ) -> Named:
        logits, used = self.logits(w, batch[0])
        losses = self.loss(logits, batch[1]) * weigh(logits, batch[1])
        found = torch.autograd.grad(losses.mean(), list(used.values()))
        return dict(zip(used, found, strict=True))

    def plain(self, w: Named, batch: tuple[Tensor, Tensor]) -> Named:
        return self.gradient(w, batch, lambda z, y: torch.ones_like(y, dtype=z.dtype))

    def moved(self, epsilon: Named) -> Named:
        return {n: w + epsilon[n] if n in epsilon else w for n, w in self.w.items()}

    def descend(self, g: Named) -> None:
        self.t += 1
        for n in g:
            d = g[n] + DECAYS[part_of(n)] * self.w[n]
            if self.base == "sgd":
                self.v[n] = d if n not in self.v else MOMENTUM * self.v[n] + d
                self.w[n] = self.w[n] - RATE * self.v[n]
                continue
            self.v[n] = 0.9 * self.v.get(n, torch.zeros_like(d)) + 0.1 * d
            self.square[n] = 0.999 * self.square.get(n, torch.zeros_like(d)) + 0.001 * d**2
            root = (self.square[n] / (1 - 0.999**self.t)) ** 0.5
            self.w[n] = self.w[n] - 0.01 * (self.v[n] / (1 - 0.9**self.t)) / (root + 1e-8)


def norm(g: Named) -> float:
    return float(sum(float((x * x).sum()) for x in g.values())) ** 0.5


def dot(a: Named, b: Named) -> float:
    return float(sum(float((a[n] * b[n]).sum()) for n in a))


def along(g: Named) -> Named:
    """ρ g/‖g‖."""
    return {n: RADII[part_of(n)] * x / norm(g) for n, x in g.items()}


def sgd(slow: Slow, batch: tuple[Tensor, Tensor]) -> Named:
    return slow.plain(slow.w, batch)


def sam(slow: Slow, batch: tuple[Tensor, Tensor]) -> Named:
    return slow.plain(slow.moved(along(slow.plain(slow.w, batch))), batch)


def every_third(slow: Slow, batch: tuple[Tensor, Tensor]) -> Named:
    return sam(slow, batch) if slow.t % 3 == 0 else sgd(slow, batch)


def asam(slow: Slow, batch: tuple[Tensor, Tensor]) -> Named:
    g = slow.plain(slow.w, batch)
    t = {n: slow.w[n].abs() + 0.01 for n in g}
    length = norm({n: t[n] * g[n] for n in g})
    return slow.plain(
        slow.moved({n: RADII[part_of(n)] * t[n] ** 2 * g[n] / length for n in g}), batch
    )


def with_metric(slow: Slow, batch: tuple[Tensor, Tensor], g: Named, f: Named) -> Named:
    """ρ F⁻¹g/√(gᵀF⁻¹g), F⁻¹ = 1/(1 + ηf/f̄) with η = 1 and f̄ the mean of all f."""
    mean = sum(float(x.sum()) for x in f.values()) / sum(x.numel() for x in f.values())
    return with_literal_metric(slow, batch, g, {n: x / mean for n, x in f.items()})


def with_literal_metric(slow: Slow, batch: tuple[Tensor, Tensor], g: Named, f: Named) -> Named:
    """ρ F⁻¹g/√(gᵀF⁻¹g), F⁻¹ = 1/(1 + ηf) with η = 1."""
    inverse = {n: 1 / (1 + f[n]) for n in g}
    length = dot(g, {n: inverse[n] * g[n] for n in g}) ** 0.5
    return slow.plain(
        slow.moved({n: RADII[part_of(n)] * inverse[n] * g[n] / length for n in g}), batch
    )


def fisher(slow: Slow, batch: tuple[Tensor, Tensor]) -> Named:
    g = slow.plain(slow.w, batch)
    return with_metric(slow, batch, g, {n: x**2 for n, x in g.items()})


def fisher_of_the_paper(slow: Slow, batch: tuple[Tensor, Tensor]) -> Named:
    g = slow.plain(slow.w, batch)
    return with_literal_metric(slow, batch, g, {n: x**2 for n, x in g.items()})


def fisher_running(slow: Slow, batch: tuple[Tensor, Tensor]) -> Named:
    g = slow.plain(slow.w, batch)
    for n in g:
        slow.square[n] = 0.8 * slow.square.get(n, g[n] ** 2) + 0.2 * g[n] ** 2
    return with_metric(slow, batch, g, dict(slow.square))


def fisher_of_rows(slow: Slow, batch: tuple[Tensor, Tensor]) -> Named:
    logits, used = slow.logits(slow.w, batch[0])
    losses = slow.loss(logits, batch[1])
    rows = [torch.autograd.grad(x, list(used.values()), retain_graph=True) for x in losses]
    f = {n: sum(row[i] ** 2 for row in rows) / len(rows) for i, n in enumerate(used)}
    return with_metric(slow, batch, slow.plain(slow.w, batch), f)  # type: ignore[arg-type]


def look_sam(slow: Slow, batch: tuple[Tensor, Tensor]) -> Named:
    """k = 3, α = 0.1."""
    g = slow.plain(slow.w, batch)
    if slow.t % 3 == 0:
        g_s = slow.plain(slow.moved(along(g)), batch)
        share = dot(g_s, g) / norm(g) ** 2
        slow.square = {n: g_s[n] - share * g[n] for n in g}  # g_v
        return g_s
    factor = 0.1 * norm(g) / norm(slow.square)
    return {n: g[n] + factor * slow.square[n] for n in g}


def momentum_sam(slow: Slow, batch: tuple[Tensor, Tensor]) -> Named:
    back = {n: -x for n, x in along(slow.v).items()} if slow.v else {}
    return slow.plain(slow.moved(back), batch)


def csam(slow: Slow, batch: tuple[Tensor, Tensor]) -> Named:
    """γ = 2."""
    climbed = slow.moved(along(slow.plain(slow.w, batch)))

    def weigh(logits: Tensor, labels: Tensor) -> Tensor:
        p = torch.exp(logits) / torch.exp(logits).sum(1, keepdim=True)
        own = torch.stack([row[y] for row, y in zip(p, labels, strict=True)])
        return torch.stack([torch.ones(()).to(x) if x <= 0.5 else (1 + x) ** -2 for x in own])

    return slow.gradient(climbed, batch, weigh)


def through_the_jacobian(slow: Slow, batch: tuple[Tensor, Tensor], epsilon: Named) -> Named:
    """J(w + ε)ᵀ ∂L/∂z(w), the Jacobian written out."""
    z, _ = slow.logits(slow.w, batch[0])
    z = z.detach().requires_grad_()
    (slope,) = torch.autograd.grad(slow.loss(z, batch[1]).mean(), z)
    climbed, used = slow.logits(slow.moved(epsilon), batch[0])
    total = {n: torch.zeros_like(x) for n, x in used.items()}
    for output, weight in zip(climbed.flatten(), slope.flatten(), strict=True):
        row = torch.autograd.grad(output, list(used.values()), retain_graph=True)
        for n, derivative in zip(used, row, strict=True):
            total[n] += weight * derivative
    return total


def functional_sam(slow: Slow, batch: tuple[Tensor, Tensor]) -> Named:
    return through_the_jacobian(slow, batch, along(slow.plain(slow.w, batch)))


def unpreconditioned(slow: Slow, g: Named) -> Named:
    """M⁻¹g, M = √v̂ + eps; v̂ is Adam's, or in its first step and with SGD a mean of g²."""
    if slow.base == "adam" and slow.t > 0:
        hat = {n: slow.square[n] / (1 - 0.999**slow.t) for n in g}
    elif slow.base == "adam":
        hat = {n: g[n] ** 2 for n in g}
    else:
        for n in g:
            slow.square[n] = 0.999 * slow.square.get(n, 0 * g[n]) + 0.001 * g[n] ** 2
        hat = {n: slow.square[n] / (1 - 0.999 ** (slow.t + 1)) for n in g}
    return {n: g[n] / (hat[n] ** 0.5 + 1e-8) for n in g}


def preconditioned(slow: Slow, g: Named) -> Named:
    """ρ M⁻¹g/‖M⁻¹g‖."""
    return along(unpreconditioned(slow, g))


def preconditioned_by_gradient(slow: Slow, batch: tuple[Tensor, Tensor]) -> Named:
    """The paper's ρ M⁻¹g/‖g‖."""
    g = slow.plain(slow.w, batch)
    x = unpreconditioned(slow, g)
    return slow.plain(slow.moved({n: RADII[part_of(n)] * x[n] / norm(g) for n in g}), batch)


def preconditioned_sam(slow: Slow, batch: tuple[Tensor, Tensor]) -> Named:
    return slow.plain(slow.moved(preconditioned(slow, slow.plain(slow.w, batch))), batch)


def preconditioned_functional_sam(slow: Slow, batch: tuple[Tensor, Tensor]) -> Named:
    return through_the_jacobian(slow, batch, preconditioned(slow, slow.plain(slow.w, batch)))


def friendly_sam(slow: Slow, batch: tuple[Tensor, Tensor]) -> Named:
    """σ = 1, λ = 0.9."""
    g = slow.plain(slow.w, batch)
    for n in g:
        slow.square[n] = 0.9 * slow.square.get(n, 0 * g[n]) + 0.1 * g[n]
    return slow.plain(slow.moved(along({n: g[n] - slow.square[n] for n in g})), batch)


def gsam(slow: Slow, batch: tuple[Tensor, Tensor]) -> Named:
    """α = 0.2."""
    g = slow.plain(slow.w, batch)
    sharp = slow.plain(slow.moved(along(g)), batch)
    share = dot(g, sharp) / norm(sharp) ** 2
    return {n: sharp[n] - 0.2 * (g[n] - share * sharp[n]) for n in g}


class SlowESAM:
    """β = 0.6, γ = 0.5; the draws come from outside."""

    def __init__(self, draws: Iterator[float]) -> None:
        self.draws = draws

    def __call__(self, slow: Slow, batch: tuple[Tensor, Tensor]) -> Named:
        epsilon = along(slow.plain(slow.w, batch))
        moved = {n: x / 0.6 * (next(self.draws) < 0.6) for n, x in epsilon.items()}
        before, after = (
            slow.loss(slow.logits(w, batch[0])[0].detach(), batch[1])
            for w in (slow.w, slow.moved(moved))
        )
        rise = [(float(a - b), i) for i, (a, b) in enumerate(zip(after, before, strict=True))]
        rows = sorted(i for _, i in sorted(rise, reverse=True)[: len(rise) // 2])
        return slow.plain(slow.moved(moved), (batch[0][rows], batch[1][rows]))
