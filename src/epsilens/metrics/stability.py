"""Stability: how far an explanation moves when the image is perturbed and the prediction is not.

attributions: the maps at x, `[N, C, H, W]`; perturbed: the maps at x + delta_k, `[K, N, C, H, W]`, of the same class;
kept: bool `[K, N]`, whether the prediction is still that class. A sample whose prediction flipped is left out singly;
an image with no sample left has NaN, and so has one with an all-zero map at x or at a sample that is kept. Only
directions and ranks are compared: adversarial training shrinks gradients, and any distance that knows their scale would
call that stability. The relative forms, which are known from the literature, look at a - a' itself.
"""

from __future__ import annotations

import torch
from torch import Tensor

from epsilens.metrics.weights import directions, pixel_weights, spearman, top
from epsilens.types import Attributions, Images, Logits, Scores

TOP = 0.1  # share of the pixels in the top set
UNMOVED = 2**-23  # of a float32 map or image: a smaller relative change is rounding, and its logarithm means nothing
SAME_OUTPUT = 2**-10  # tau: a smaller relative change of the logits counts as this one; the precision of TensorFloat-32


def distances(attributions: Attributions, perturbed: Tensor) -> Tensor:
    """Euclidean distance of the directions, `[K, N]` in [0, sqrt(2)]: the weights are not negative."""
    moved = directions(pixel_weights(perturbed)) - directions(pixel_weights(attributions))
    return torch.linalg.vector_norm(moved, dim=-1)


def _mean_kept(values: Tensor, kept: Tensor) -> Scores:
    return values.where(kept, 0).sum(dim=0) / kept.sum(dim=0)


def _max_kept(values: Tensor, kept: Tensor) -> Scores:
    return values.where(kept, -torch.inf).amax(dim=0).where(kept.any(dim=0), torch.nan)


def _median_kept(values: Tensor, kept: Tensor) -> Scores:
    lost = (values.isnan() & kept).any(dim=0)
    return values.where(kept, torch.nan).nanquantile(0.5, dim=0).masked_fill(lost, torch.nan)


def direction_sensitivity(attributions: Attributions, perturbed: Tensor, kept: Tensor) -> Scores:
    """Mean over k of ||a'/||a'|| - a/||a|| ||, `[N]` in [0, sqrt(2)] (after Yeh et al. 2019, arXiv:1901.09392).

    0 when every perturbed map is a multiple of the map, sqrt(2) when none shares a pixel with it.
    """
    return _mean_kept(distances(attributions, perturbed), kept)


def direction_sensitivity_max(attributions: Attributions, perturbed: Tensor, kept: Tensor) -> Scores:
    """The maximum over k of what direction_sensitivity averages, `[N]` in [0, sqrt(2)]."""
    return _max_kept(distances(attributions, perturbed), kept)


def adversarial_stability(attributions: Attributions, perturbed: Tensor, kept: Tensor) -> Scores:
    """Direction sensitivity at the one neighbour that an attack on the map found, `[N]` in [0, sqrt(2)] (after Ghorbani et
    al. 2019, arXiv:1710.10547; the attack is in worst.py).

    perturbed: `[1, N, C, H, W]`. With the same radius and samples never below direction_sensitivity_max.
    """
    return direction_sensitivity_max(attributions, perturbed, kept)


def rank_stability(attributions: Attributions, perturbed: Tensor, kept: Tensor) -> Scores:
    """Mean over k of Spearman's correlation of the pixel weights, `[N]` in [-1, 1]: 1 for the same order.

    NaN for a map without any order (constant).
    """
    a, b = pixel_weights(attributions).flatten(-2), pixel_weights(perturbed).flatten(-2)
    return _mean_kept(spearman(a, b), kept)


def top_stability(attributions: Attributions, perturbed: Tensor, kept: Tensor) -> Scores:
    """Mean over k of the share of the top tenth of the pixels that stays in it, `[N]` in [0, 1] (Ghorbani et al. 2019,
    arXiv:1710.10547); 0.1 by chance."""
    a, b = pixel_weights(attributions).flatten(-2), pixel_weights(perturbed).flatten(-2)
    count = torch.tensor(max(1, round(TOP * a.shape[-1])), device=a.device)
    common = torch.minimum(top(a, count.expand(a.shape[:-1])), top(b, count.expand(b.shape[:-1])))
    return _mean_kept(common.sum(dim=-1) / count, kept)


def retention(attributions: Attributions, perturbed: Tensor, kept: Tensor) -> Scores:
    """Share of the K samples whose prediction did not flip, `[N]` in [0, 1]: what the other stability scores rest on."""
    return kept.double().mean(dim=0)


def relative_input_stability(
    attributions: Attributions, perturbed: Tensor, kept: Tensor, images: Images, near: Tensor
) -> Scores:
    """log10 of the maximum over k of (||a - a'|| / ||a||) / (||x - x'|| / ||x||), `[N]` (after Agarwal et al. 2022,
    arXiv:2203.06877, with norms of whole maps).

    images: x, `[N, C, H, W]`; near: x', `[K, N, C, H, W]`. 0 when the map moves as much as the image. A map that moves
    by less than float32 resolves counts as moved by that much. NaN for a black image.
    """
    moved, shifted = _relative(pixel_weights(perturbed), pixel_weights(attributions)), _relative(near, images)
    return _max_kept(_log_ratio(moved, shifted), kept)


def relative_input_stability_elementwise(
    attributions: Attributions, perturbed: Tensor, kept: Tensor, images: Images, near: Tensor
) -> Scores:
    """log10 of the median over k of ||(a - a') / a|| / ||(x - x') / x||, divided element by element, `[N]` (Agarwal et al.
    2022, arXiv:2203.06877).

    Pixels that weigh nothing and values that are black are left out: their quotient does not exist. The others near zero
    rule the norms, hence the median instead of the maximum. NaN for a black image.
    """
    moved, shifted = _elementwise(pixel_weights(perturbed), pixel_weights(attributions)), _elementwise(near, images)
    return _median_kept(_log_ratio(moved, shifted), kept)


def relative_output_stability(
    attributions: Attributions, perturbed: Tensor, kept: Tensor, logits: Logits, near: Tensor
) -> Scores:
    """log10 of the maximum over k of (||a - a'|| / ||a||) / max(||h - h'|| / ||h - mean h||, tau), `[N]` (after Agarwal
    et al. 2022, arXiv:2203.06877).

    logits: h, `[N, classes]`; near: h', `[K, N, classes]`. Free of scale and shift of the logits. NaN where all logits of
    the image are equal.
    """
    moved = _relative(pixel_weights(perturbed), pixel_weights(attributions))
    h = logits.double()
    above = h - h[:, :1]  # exactly 0 where all are equal, whatever the mean is rounded to
    spread = torch.linalg.vector_norm(above - above.mean(dim=-1, keepdim=True), dim=-1)
    answered = torch.linalg.vector_norm(near.double() - h, dim=-1) / spread
    return _max_kept(_log_ratio(moved, answered.clamp(min=SAME_OUTPUT)), kept)


def relative_output_stability_original(
    attributions: Attributions, perturbed: Tensor, kept: Tensor, logits: Logits, near: Tensor
) -> Scores:
    """log10 of the maximum over k of ||(a - a') / a|| / ||h - h'||, divided element by element, `[N]` (Agarwal et al. 2022,
    arXiv:2203.06877).

    Beside relative_output_stability, to show the confound: it rises by 1 when the logits shrink tenfold, whatever the maps
    do. Pixels that weigh nothing are left out. NaN where no logit moves.
    """
    moved = _elementwise(pixel_weights(perturbed), pixel_weights(attributions))
    return _max_kept(_log_ratio(moved, torch.linalg.vector_norm(near.double() - logits.double(), dim=-1)), kept)


def _relative(moved: Tensor, start: Tensor) -> Tensor:
    """||moved - start|| / ||start|| over all that follows `[K, N]`."""
    change = (moved.double() - start.double()).flatten(2)
    return torch.linalg.vector_norm(change, dim=-1) / torch.linalg.vector_norm(start.double().flatten(1), dim=-1)


def _elementwise(moved: Tensor, start: Tensor) -> Tensor:
    """||(moved - start) / start|| over the elements of `start` that are not 0; NaN where there is none, `[K, N]`."""
    start = start.double()
    change = ((moved.double() - start) / start).masked_fill(start == 0, 0).flatten(2)
    return torch.linalg.vector_norm(change, dim=-1).where((start != 0).flatten(1).any(dim=-1), torch.nan)


def _log_ratio(moved: Tensor, base: Tensor) -> Tensor:
    """log10(moved / base) `[K, N]`, finite or NaN."""
    ratio = (moved.clamp(min=UNMOVED) / base).log10()
    return ratio.where(ratio.isfinite(), torch.nan)
