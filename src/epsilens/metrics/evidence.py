"""What metrics are computed from. Shared work is done once: one neighbourhood serves all stability metrics, one removal
path all faithfulness metrics."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from epsilens.metrics.imputation import impute
from epsilens.metrics.weights import pixel_weights
from epsilens.randomness import derive, per_image
from epsilens.types import Attributions, Explainer, Images, Labels, Masks, Model, NoiseSeeds

IMPUTATION_NOISE = (
    0.01  # standard deviation on imputed pixels, as in the reference, so that they cannot be told by smoothness
)


@dataclass(frozen=True)
class Neighbourhood:
    """Maps of the same classes at K perturbed images, and whether the prediction is still that class."""

    attributions: Tensor  # [K, N, C, H, W]
    kept: Tensor  # bool [K, N]


@dataclass(frozen=True)
class Removal:
    """Whether the prediction is still the clean one after a share of the pixels was imputed, float64 [Q, N].

    1 if it is, 0 if not, NaN for an image whose map ranks nothing (all zero) or whose logits are NaN.
    """

    least_first: Tensor
    most_first: Tensor


@dataclass(frozen=True)
class Evidence:
    """One method's maps of one network, and all that its metrics need.

    Every score is one image's own, so that `parts` may be scored one after the other, and memory is that of one batch.
    """

    images: Images
    targets: Labels  # the class that is explained: the prediction on the clean image, held fixed throughout
    attributions: Attributions
    masks: Masks
    seeds: NoiseSeeds
    predict: Model
    explain: Explainer
    batch_size: int
    _done: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    def parts(self) -> Iterator[Evidence]:
        """The same evidence, `batch_size` images at a time."""
        for start in range(0, len(self.images), self.batch_size):
            part = slice(start, start + self.batch_size)
            yield replace(
                self,
                images=self.images[part],
                targets=self.targets[part],
                attributions=self.attributions[part],
                masks=self.masks[part],
                seeds=self.seeds[part],
                _done={},
            )

    def neighbourhood(self, radius_255: float, samples: int) -> Neighbourhood:
        """`samples` perturbations, uniform within `radius_255` / 255 and clipped to [0, 1]: the same for every network and
        method. A method's own noise is drawn anew for each, as a user's second look at an image would."""
        return self._once(("neighbourhood", radius_255, samples), lambda: self._neighbourhood(radius_255, samples))

    def removal(self, fractions: tuple[float, ...]) -> Removal:
        """The least and the most relevant pixels removed, for each share in `fractions`, by noisy linear imputation."""
        return self._once(("removal", fractions), lambda: self._removal(fractions))

    def _once(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        if key not in self._done:
            self._done[key] = compute()
        return self._done[key]

    def _neighbourhood(self, radius_255: float, samples: int) -> Neighbourhood:
        maps, kept = [], []
        for k in range(samples):
            noise = per_image(torch.rand, tuple(self.images.shape[1:]), self.seeds, "neighbour", k)
            near = (self.images + radius_255 / 255 * (2 * noise - 1).to(self.images)).clamp(0, 1)
            own = torch.tensor([derive(int(seed), "neighbour", k) for seed in self.seeds])
            maps.append(self.explain(near, self.targets, own))
            kept.append(self._unchanged(near) == 1)
        return Neighbourhood(torch.stack(maps), torch.stack(kept))

    def _removal(self, fractions: tuple[float, ...]) -> Removal:
        weights = pixel_weights(self.attributions).flatten(1)
        order = self._ascending(weights)
        place = order.argsort(dim=1).view(len(self.images), *self.images.shape[2:])
        pixels, undefined = order.shape[1], weights.isnan().any(dim=1)
        counts = [round(q * pixels) for q in fractions]
        least = [self._unchanged(self._without(place < count, q)) for q, count in enumerate(counts)]
        most = [self._unchanged(self._without(place >= pixels - count, q)) for q, count in enumerate(counts)]
        return Removal(*(torch.stack(path).masked_fill(undefined, torch.nan) for path in (least, most)))

    def _ascending(self, weights: Tensor) -> Tensor:
        """Pixels `[N, n]`, the least relevant first. Ties are in an order drawn for the image: in that of the pixels, a map
        that is flat, as many are on a plain background, would rank the top of the image below its bottom."""
        drawn = per_image(torch.rand, tuple(weights.shape[1:]), self.seeds, "ties").to(weights).argsort(dim=1)
        return drawn.gather(1, weights.gather(1, drawn).argsort(dim=1, stable=True))

    def _without(self, removed: Tensor, q: int) -> Images:
        filled = impute(self.images, removed)
        noise = per_image(torch.randn, tuple(self.images.shape[1:]), self.seeds, "imputation", q)
        return filled + IMPUTATION_NOISE * noise.to(filled) * removed[:, None]

    @torch.no_grad()
    def _unchanged(self, images: Images) -> Tensor:
        logits = self.predict(images)
        same = (logits.argmax(dim=1) == self.targets).double()
        return same.where(~logits.isnan().any(dim=1), torch.nan)  # the arg-max of NaN is a class, and means nothing
