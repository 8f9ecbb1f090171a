"""What metrics are computed from. Shared work is done once: one neighbourhood serves all stability metrics, one removal
path all metrics that remove pixels."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from epsilens.batches import Batches
from epsilens.errors import DataError
from epsilens.metrics import mosaics
from epsilens.metrics.imputation import impute
from epsilens.metrics.stability import distances
from epsilens.metrics.weights import pixel_weights
from epsilens.metrics.worst import climb
from epsilens.progress import Done, untold
from epsilens.randomness import derive, per_image
from epsilens.types import Attributions, Explainer, Images, Labels, Logits, Masks, Model, NoiseSeeds, Scores

Layers = int | Literal["all"]  # of random weights, from the output
IMPUTATION_NOISE = 0.01  # standard deviation, as in the reference: imputed pixels cannot be told by their smoothness
T = TypeVar("T")


@dataclass(frozen=True)
class Neighbourhood:
    """Maps and logits at K perturbed images, and whether the prediction is still the class that is explained."""

    images: Tensor  # [K, N, C, H, W]
    attributions: Tensor  # [K, N, C, H, W], of that class
    logits: Tensor  # [K, N, classes]
    kept: Tensor  # bool [K, N]


@dataclass(frozen=True)
class Worst:
    """Maps at the neighbours that an attack on the map found, and whether there was one to start from."""

    attributions: Tensor  # [N, C, H, W]
    kept: Tensor  # bool [N]


@dataclass(frozen=True)
class Removal:
    """What is left of the prediction after a share of the pixels was imputed, float64 [Q, N].

    least_first, most_first: 1 if it is still the clean one, 0 if not. The probabilities are those of the clean prediction.
    All are NaN for an image whose map ranks nothing (all zero) or whose logits are NaN.
    """

    least_first: Tensor
    most_first: Tensor
    least_probability: Tensor
    most_probability: Tensor


@dataclass(frozen=True)
class Mosaic:
    """Maps of mosaics of 2 x 2 images, NaN where there is none, and the cell of the image that is explained."""

    attributions: Tensor  # [N, C, 2H, 2W]
    cells: Tensor  # int64 [N]


@dataclass(frozen=True)
class Evidence:
    """One method's maps of one network, and all that its metrics need.

    Every score is one image's own, so that parts may be scored one after the other, and memory is that of one batch.
    seeds: of the noise that metrics draw. map_seeds: those with which `attributions` were made; `seeds` if None.
    randomised: the method on the same network with that many layers of random weights, where there is one.
    """

    images: Images
    targets: Labels  # the class that is explained: the prediction on the clean image, held fixed throughout
    attributions: Attributions
    masks: Masks
    seeds: NoiseSeeds
    predict: Model
    explain: Explainer
    batch_size: int
    map_seeds: NoiseSeeds | None = None
    randomised: Callable[[Layers], Explainer] | None = None
    _of: tuple[Evidence, slice] | None = field(default=None, repr=False)  # what this is a part of, and which
    _done: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    def by_part(self, compute: Callable[[Evidence], T], done: Done = untold) -> list[T]:
        """`compute` of the same evidence, `batch_size` images at a time. done: told of maps."""
        parts = Batches(self.batch_size).of(lambda part: compute(self._part(part)), len(self.images), done)
        return [found for _, found in parts]

    def _part(self, part: slice) -> Evidence:
        given = {
            name: getattr(self, name) for name in ("images", "targets", "attributions", "masks", "seeds", "map_seeds")
        }
        own = {name: None if whole is None else whole[part] for name, whole in given.items()}
        return replace(self, **own, _of=(self, part), _done={})

    def logits(self) -> Logits:
        """Of the clean images."""
        return self._once("logits", lambda: self._predict(self.images))

    def probability(self) -> Scores:
        """Of the class that is explained, on the clean images."""
        return self._probability(self.logits())

    def neighbourhood(self, radius_255: float, samples: int) -> Neighbourhood:
        """`samples` perturbations, uniform within `radius_255` / 255 and clipped to [0, 1]: the same for every network and
        method. A method's own noise is drawn anew for each, as a user's second look at an image would."""
        return self._once(("neighbourhood", radius_255, samples), lambda: self._neighbourhood(radius_255, samples))

    def worst(self, radius_255: float, samples: int, steps: int) -> Worst:
        """What an attack finds in `steps` steps from the worst of the neighbourhood that is kept."""
        return self._once(("worst", radius_255, samples, steps), lambda: self._worst(radius_255, samples, steps))

    def removal(self, fractions: tuple[float, ...]) -> Removal:
        """The least and the most relevant pixels removed, for each share in `fractions`, by noisy linear imputation."""
        return self._once(("removal", fractions), lambda: self._removal(fractions))

    def perturbation(self, sigma: float, samples: int) -> tuple[Tensor, Tensor]:
        """What the map says of `samples` perturbations I, <I, g>, and what the network says, h(x) - h(x - I), `[K, N]` each.

        I is what is left of normal noise of standard deviation `sigma` after x - I was clipped to [0, 1].
        """
        return self._once(("perturbation", sigma, samples), lambda: self._perturbation(sigma, samples))

    def runner_up(self) -> Attributions:
        """Maps of the class that the network holds for second most likely, with the noise of the maps; NaN without one."""
        return self._once("runner-up", self._runner_up)

    def unlearned(self, layers: Layers) -> Attributions:
        """Maps of the same class by the network whose last `layers` are random, with the noise of the maps; NaN without."""
        if self.randomised is None:
            return torch.full_like(self.attributions, torch.nan)
        make = self.randomised
        return self._once(("unlearned", layers), lambda: make(layers)(self.images, self.targets, self._map_seeds()))

    def mosaic(self) -> Mosaic:
        """Each image in a mosaic with three of other classes, by the network's own predictions, from the whole evidence."""
        return self._once("mosaic", self._mosaic)

    def _once(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        if key not in self._done:
            self._done[key] = compute()
        return self._done[key]

    def _map_seeds(self) -> NoiseSeeds:
        return self.seeds if self.map_seeds is None else self.map_seeds

    def _passes(self, count: int) -> Iterator[range]:
        """0 to count - 1 in groups: that many copies of these images are one batch."""
        step = max(1, self.batch_size // max(1, len(self.images)))
        for start in range(0, count, step):
            yield range(start, min(start + step, count))

    def _neighbourhood(self, radius_255: float, samples: int) -> Neighbourhood:
        images, maps, logits = [], [], []
        for group in self._passes(samples):
            noise = torch.cat([per_image(torch.rand, self._shape, self.seeds, "neighbour", k) for k in group])
            copies = len(group)
            moves = noise.mul_(2).sub_(1).to(self.images).mul_(radius_255 / 255)
            near = (self.images + moves.unflatten(0, (copies, -1))).flatten(0, 1).clamp_(0, 1)
            own = torch.cat([self._neighbour_seeds([k] * len(self.seeds)) for k in group])
            maps.append(self.explain(near, self.targets.repeat(copies), own))
            logits.append(self._predict(near))
            images.append(near)
        found = (torch.cat(parts).unflatten(0, (samples, -1)) for parts in (images, maps, logits))
        near, attributions, answers = found
        return Neighbourhood(near, attributions, answers, self._same(answers) == 1)

    def _neighbour_seeds(self, samples: list[int]) -> NoiseSeeds:
        """The noise of the method at the sample of each image."""
        pairs = zip(self.seeds.tolist(), samples, strict=True)
        return torch.tensor([derive(seed, "neighbour", k) for seed, k in pairs], dtype=torch.int64)

    def _worst(self, radius_255: float, samples: int, steps: int) -> Worst:
        near = self.neighbourhood(radius_255, samples)
        far = distances(self.attributions, near.attributions).nan_to_num(torch.inf)  # undefined stays undefined
        worst, rows = far.where(near.kept, -1).argmax(dim=0), torch.arange(len(self.images), device=far.device)
        seeds = self._neighbour_seeds(worst.tolist())

        def explain(images: Images) -> Attributions:
            return self.explain(images, self.targets, seeds)

        def holds(images: Images) -> Tensor:
            return self._same(self._predict(images)) == 1

        start = near.images[worst, rows], near.attributions[worst, rows]
        maps = climb(self.images, self.attributions, start, radius_255 / 255, steps, explain, holds)[1]
        return Worst(maps, near.kept.any(dim=0))

    def _removal(self, fractions: tuple[float, ...]) -> Removal:
        weights = pixel_weights(self.attributions).flatten(1)
        order = self._ascending(weights)
        place = order.argsort(dim=1).view(len(self.images), *self.images.shape[2:])
        pixels, undefined = order.shape[1], weights.isnan().any(dim=1)
        counts, logits = [round(q * pixels) for q in fractions], []
        gone = [removed for count in counts for removed in (place < count, place >= pixels - count)]

        @lru_cache(maxsize=1)  # the least and the most relevant pixels of a share have the same noise
        def noise(share: int) -> Tensor:
            return per_image(torch.randn, self._shape, self.seeds, "imputation", share)

        for group in self._passes(len(gone)):
            drawn = torch.cat([noise(k // 2) for k in group])
            filled = self._without(torch.cat([gone[k] for k in group]), drawn)
            logits.append(self._predict(filled))
        answers = torch.cat(logits).view(len(fractions), 2, len(self.images), -1)
        kept, left = (
            value.masked_fill(undefined, torch.nan) for value in (self._same(answers), self._probability(answers))
        )
        return Removal(kept[:, 0], kept[:, 1], left[:, 0], left[:, 1])

    def _ascending(self, weights: Tensor) -> Tensor:
        """Pixels `[N, n]`, the least relevant first. Ties are in an order drawn for the image: in that of the pixels, a map
        that is flat, as many are on a plain background, would rank the top of the image below its bottom."""
        drawn = (
            per_image(torch.rand, tuple(weights.shape[1:]), self.seeds, "ties").to(weights).argsort(dim=1, stable=True)
        )
        return drawn.gather(1, weights.gather(1, drawn).argsort(dim=1, stable=True))

    def _without(self, removed: Tensor, noise: Tensor) -> Images:
        """removed: bool `[M * N, H, W]`, M copies of the images."""
        filled = impute(self.images.repeat(len(removed) // len(self.images), 1, 1, 1), removed)
        return filled + IMPUTATION_NOISE * noise.to(filled) * removed[:, None]

    def _perturbation(self, sigma: float, samples: int) -> tuple[Tensor, Tensor]:
        products, changes = [], []
        clean, g = self._target_logit(self.logits()), self.attributions.double()
        for group in self._passes(samples):
            noise = torch.cat([per_image(torch.randn, self._shape, self.seeds, "perturbation", k) for k in group])
            images = self.images.repeat(len(group), 1, 1, 1)
            near = (images - sigma * noise.to(images)).clamp(0, 1)
            moved = (images.double() - near.double()).unflatten(0, (len(group), -1))
            products.append((moved * g).flatten(2).sum(dim=2))
            changes.append(clean - self._target_logit(self._predict(near).unflatten(0, (len(group), -1))))
        return torch.cat(products), torch.cat(changes)

    def _runner_up(self) -> Attributions:
        logits = self.logits()
        if logits.shape[1] < 2:
            return torch.full_like(self.attributions, torch.nan)
        own = torch.arange(logits.shape[1], device=logits.device) == self.targets[:, None]
        second = logits.masked_fill(own, -torch.inf).argmax(dim=1)
        maps = self.explain(self.images, second, self._map_seeds())
        return maps.where(~logits.isnan().any(dim=1)[:, None, None, None], torch.nan)

    def _mosaic(self) -> Mosaic:
        whole, own = self._of or (self, slice(None))
        others = whole._once("partners", lambda: mosaics.partners(whole.targets, whole.seeds))[own]
        places = mosaics.cells(self.seeds).to(self.images.device)
        count, channels, height, width = self.images.shape
        maps = self.attributions.new_full((count, channels, 2 * height, 2 * width), torch.nan)
        rows = (others >= 0).all(dim=1).nonzero().flatten()
        for part in rows.split(max(1, self.batch_size // mosaics.CELLS)):  # a mosaic is as large as four images
            tiled = mosaics.tiled(self.images[part], whole.images[others[part]], places[part])
            found = self._double_size(tiled, part)
            if found is None:
                break
            maps[part.to(maps.device)] = found.to(maps)
        return Mosaic(maps, places)

    def _double_size(self, tiled: Images, rows: Tensor) -> Attributions | None:
        """Maps of mosaics; None if the network or the method has a fixed size."""
        try:
            self._predict(tiled[:1])
            return self.explain(tiled, self.targets[rows], self._map_seeds()[rows])
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, AssertionError, DataError):  # the others are captum's, and of references of one size
            return None

    @property
    def _shape(self) -> tuple[int, ...]:
        return tuple(self.images.shape[1:])

    @torch.no_grad()
    def _predict(self, images: Images) -> Logits:
        return self.predict(images)

    def _same(self, logits: Tensor) -> Tensor:
        """1 where the class of `[..., N, classes]` is the one that is explained, 0 where not, NaN for logits of NaN."""
        same = (logits.argmax(dim=-1) == self.targets).double()
        return same.where(~logits.isnan().any(dim=-1), torch.nan)  # the arg-max of NaN is a class, and means nothing

    def _target_logit(self, logits: Tensor) -> Tensor:
        """Of the class that is explained, float64; `[..., N, classes]` to `[..., N]`."""
        wanted = self.targets.view(*[1] * (logits.ndim - 2), -1, 1).expand(*logits.shape[:-1], 1)
        return logits.double().gather(-1, wanted).squeeze(-1)

    def _probability(self, logits: Tensor) -> Tensor:
        return self._target_logit(logits.double().log_softmax(dim=-1)).exp()
