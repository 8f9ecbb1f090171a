"""Claim: the metrics cost a fraction of what they cost in Quantus 0.6, at equal values (targets: metrics of maps alone 10
times, each metric that asks the network 2 times, all together 10 times less; on a GPU all together 20 times).

Both score the same images by the same network, the same maps and the same perturbations, in turns (A B A B ...); medians
of the CPU time of the process (on a GPU: of wall time), one thread. Quantus has the network as its users have it,
contiguous and not frozen; here it is as models.checkpoints.load returns it. Quantus draws its own noise and is then
handed ours, so that each pays for one drawing. Every score is compared, in a first turn that is not timed, in which
Quantus has our layout: between two layouts rounding differs, and a map can move by more than the tolerance (docs/log.md).
The last line is JSON.

Equal values need Quantus' definitions where ours differ on purpose (docs/metrics.md): sensitivity that knows the scale of
the map, the maximum of the elementwise relative stability, NaN where one prediction changed, and faithfulness
correlation, which is no metric here. They are written below, on the neighbourhood that our metrics share. ROAD is that of
the pipeline, which removes the most and the least relevant pixels; Quantus is asked twice, the second time for max a - a.
Numbers of samples have the proportions of Quantus' defaults (200 neighbours, 100 runs, 50 percentages).
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the packages that quantus imports
    import quantus
    from quantus.functions.explanation_func import explain as explain_theirs
    from quantus.functions.perturb_func import batch_uniform_noise, noisy_linear_imputation

from epsilens.attributions import explainer
from epsilens.metrics.conciseness import effective_fraction, gini
from epsilens.metrics.evidence import IMPUTATION_NOISE, Evidence
from epsilens.metrics.recalled import Recalled
from epsilens.metrics.relevance import relevance_mass, relevance_rank
from epsilens.metrics.weights import pixel_weights
from epsilens.models import build
from epsilens.processes import keep_freed_memory
from epsilens.randomness import noise_seeds, per_image

SIDE, CLASSES, RADIUS, SUBSET = 32, 10, 8, 224
TOLERANCE = 1e-5  # of a score, relative where it is above 1


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--images", type=int, default=64, help="one batch; in Quantus ROAD averages the first batch alone"
    )
    parser.add_argument(
        "--samples", type=int, default=16, help="neighbours; half as many runs, a quarter as many shares"
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        default=256,
        help="images in one pass here; in Quantus all there are, not their copies",
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    return parser.parse_args()


@dataclass(frozen=True)
class Task:
    """What is scored, once for each side, and the perturbations of both."""

    evidence: Evidence
    network: nn.Module  # of the evidence
    recalled: Recalled  # the same, as the evidence asks it
    theirs: nn.Module  # the same as Quantus' users have it
    samples: int

    def fresh(self) -> Evidence:
        """Nothing computed yet, nor recalled from the turn before."""
        self.recalled.forget()
        return replace(self.evidence, _done={})

    def runs(self) -> int:
        return max(2, self.samples // 2)

    def fractions(self) -> tuple[float, ...]:
        """Evenly spaced, of whole pixels."""
        count, pixels = max(1, self.samples // 4), SIDE * SIDE
        return tuple(round(pixels * (k + 1) / (count + 1)) / pixels for k in range(count))


def task(channels: int, given: argparse.Namespace) -> Task:
    """Seeded random weights, with batch statistics of random images, and such images away from 0, where Quantus divides by
    1e-6."""
    torch.manual_seed(channels)
    options = {"width": 32, "stem_stride": 2}
    network = build("small_resnet", options, CLASSES, [0.5] * channels, [0.25] * channels, seed=0).to(given.device)
    images = 0.1 + 0.8 * torch.rand(given.images, channels, SIDE, SIDE, device=given.device)
    with torch.no_grad():
        for _ in range(50):
            network(0.1 + 0.8 * torch.rand_like(images))
        network.eval()
        network[1].head.bias -= network(images).mean(dim=0)  # type: ignore[union-attr]  # else all are of one class
    theirs = copy.deepcopy(network)
    network.requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # stubs lack it
    explain, predict = explainer(network, "gradient", {}, given.batch_size), Recalled(network)
    seeds = noise_seeds(0, torch.arange(given.images))
    with torch.no_grad():
        targets = predict(images).argmax(dim=1)
    masks = torch.zeros(given.images, SIDE, SIDE, dtype=torch.bool, device=given.device)
    masks[:, 8:24, 4:20] = True
    maps = explain(images, targets, seeds)
    evidence = Evidence(images, targets, maps, masks, seeds, predict, explain, given.batch_size)
    return Task(evidence, network, predict, theirs, given.samples)


# Ours: the metrics of the pipeline, or Quantus' formulas on what the pipeline's metrics share.


def complexity(one: Evidence) -> Tensor:
    return (effective_fraction(one.attributions) * SIDE * SIDE).log()


def sensitivities(one: Evidence, samples: int) -> Tensor:
    """||a - a'|| / ||a||, [K, N]."""
    a, moved = pixel_weights(one.attributions), pixel_weights(one.neighbourhood(RADIUS, samples).attributions)
    return norm(moved - a) / norm(a)


def relative(one: Evidence, samples: int, base: Callable[[Evidence], Tensor]) -> Tensor:
    """The maximum over k of ||(a - a') / a|| / base, NaN where a prediction changed, [N]."""
    near, a = one.neighbourhood(RADIUS, samples), pixel_weights(one.attributions)
    ratio = norm((pixel_weights(near.attributions) - a) / a) / base(one)
    return ratio.where(near.kept, torch.nan).amax(dim=0)


def relative_input(one: Evidence, samples: int) -> Tensor:
    x = one.images.double()
    return relative(one, samples, lambda e: norm((e.neighbourhood(RADIUS, samples).images.double() - x) / x, 3))


def relative_output(one: Evidence, samples: int) -> Tensor:
    h = one.logits().double()
    return relative(one, samples, lambda e: norm(e.neighbourhood(RADIUS, samples).logits.double() - h, 1))


def norm(values: Tensor, dimensions: int = 2) -> Tensor:
    return torch.linalg.vector_norm(values.flatten(-dimensions), dim=-1)


def subset(shape: tuple[int, ...], generator: torch.Generator, out: Tensor | None = None) -> Tensor:
    """SUBSET different ones of the values of an image."""
    chosen = torch.randperm(shape[0], generator=generator)[:SUBSET]
    return chosen if out is None else out.copy_(chosen)


def correlation(one: Evidence, runs: int) -> Tensor:
    """Of what the map says of a subset and what the logit loses without it, over runs, [N]."""
    flat, a = one.images.flatten(1), pixel_weights(one.attributions).flatten(1)
    black, (count, pixels) = flat.amin(dim=1, keepdim=True).expand(-1, SUBSET), flat.shape
    said, left = [], []
    for group in one._passes(runs):  # as all that the pipeline sends through a network many times over
        drawn = [per_image(subset, (pixels,), one.seeds, "subset", run).to(flat.device) for run in group]
        without = torch.stack([flat.scatter(1, chosen, black) for chosen in drawn])
        with torch.no_grad():
            left.append(one.predict(without.view(-1, *one.images.shape[1:])).unflatten(0, (-1, count)))
        said += [a.gather(1, chosen % a.shape[1]).sum(dim=1) for chosen in drawn]
    lost = (one.logits() - torch.cat(left)).gather(2, one.targets.view(1, -1, 1).expand(runs, -1, 1))[..., 0]
    z, d = torch.stack(said).double(), lost.double()
    z, d = z - z.mean(dim=0), d - d.mean(dim=0)
    return (z * d).sum(dim=0) / (norm(z.T, 1) * norm(d.T, 1))


def road(one: Evidence, fractions: tuple[float, ...]) -> Tensor:
    """Accuracy after each share of the most, and of the least relevant pixels, [2 Q]."""
    path = one.removal(fractions)
    return torch.cat([path.most_first, path.least_first]).mean(dim=1)


# Theirs.


class Handed:
    """Perturbations in the order in which Quantus asks for them."""

    def __init__(self, found: Tensor) -> None:
        self.left = iter(found.cpu().numpy())

    def neighbours(self, arr: Any, indices: Any, **_: Any) -> Any:
        batch_uniform_noise(arr, indices, lower_bound=RADIUS / 255)
        return next(self.left).reshape(arr.shape)

    def imputed(self, arr: Any, indices: Any, **_: Any) -> Any:
        filled = noisy_linear_imputation(arr, indices, noise=0.0)  # noise of none is drawn all the same
        filled.reshape(len(arr), -1)[:, indices] += IMPUTATION_NOISE * next(self.left).reshape(len(arr), -1)[:, indices]
        return filled

    @contextmanager
    def subsets(self) -> Iterator[None]:
        draw = np.random.choice

        def choice(count: int, size: int, replace: bool) -> Any:
            draw(count, size, replace=replace)
            return next(self.left)

        with mock.patch.object(np.random, "choice", choice):
            yield


def ask(metric: str, one: Task, network: nn.Module, reverse: bool = False, **settings: Any) -> Any:
    """What Quantus says of a (max a - a, if `reverse`: it wants no negative map); it writes into what it gets: copies."""
    e, a = one.evidence, pixel_weights(one.evidence.attributions)[:, None]
    arrays = {"x_batch": e.images, "y_batch": e.targets, "s_batch": e.masks[:, None]}
    maps = a.amax() - a if reverse else a.to(e.images)
    given = {name: values.cpu().numpy().copy() for name, values in {**arrays, "a_batch": maps}.items()}
    made = getattr(quantus, metric)(disable_warnings=True, **settings)
    device = str(e.images.device)
    how = {"explain_func": explain_theirs, "explain_func_kwargs": {"method": "Saliency", "device": device}}
    found = made(model=network, **given, **how, batch_size=len(e.images), channel_first=True, device=device)
    return np.array(list(found.values() if isinstance(found, dict) else found), dtype=float)


@dataclass(frozen=True)
class Case:
    """One metric on both sides, as functions of the evidence and of the network that Quantus gets."""

    name: str
    of_maps: bool
    task: Task
    ours: Callable[[Evidence], Tensor]
    theirs: Callable[[nn.Module], Any]


def of_maps(one: Task) -> list[Case]:
    alone: dict[str, Any] = {
        "normalise_func_kwargs": {"normalise_axes": (1, 2, 3)}
    }  # an image's own maximum, not that of its batch
    ours: dict[str, Callable[[Evidence], Tensor]] = {
        "Sparseness": lambda e: gini(e.attributions),
        "Complexity": complexity,
        "RelevanceMassAccuracy": lambda e: relevance_mass(e.attributions, e.masks),
        "RelevanceRankAccuracy": lambda e: relevance_rank(e.attributions, e.masks),
    }
    return [Case(name, True, one, f, lambda net, name=name: ask(name, one, net, **alone)) for name, f in ours.items()]


def of_neighbours(one: Task) -> list[Case]:
    near = one.fresh().neighbourhood(RADIUS, one.samples).images
    ours: dict[str, Callable[[Evidence], Tensor]] = {
        "MaxSensitivity": lambda e: sensitivities(e, one.samples).amax(dim=0),
        "AvgSensitivity": lambda e: sensitivities(e, one.samples).mean(dim=0),
        "RelativeInputStability": lambda e: relative_input(e, one.samples),
        "RelativeOutputStability": lambda e: relative_output(e, one.samples),
    }

    def theirs(network: nn.Module, name: str) -> Any:
        return ask(name, one, network, nr_samples=one.samples, perturb_func=Handed(near).neighbours)

    return [Case(name, False, one, f, lambda net, name=name: theirs(net, name)) for name, f in ours.items()]


def of_removal(one: Task, grey: Task) -> list[Case]:
    e, pixels = one.evidence, one.evidence.images[0].numel()
    subsets = torch.cat([per_image(subset, (pixels,), e.seeds, "subset", run) for run in range(one.runs())])
    shape = tuple(grey.evidence.images.shape[1:])
    draws = range(len(grey.fractions()))
    noise = torch.cat([per_image(torch.randn, shape, grey.evidence.seeds, "imputation", k) for k in draws])
    percentages = [100 * q + 1e-9 for q in grey.fractions()]

    def their_correlation(network: nn.Module) -> Any:
        settings = {"nr_runs": one.runs(), "subset_size": SUBSET, "return_aggregate": False}
        with Handed(subsets).subsets():
            return ask("FaithfulnessCorrelation", one, network, **settings)

    def their_road(network: nn.Module) -> Any:
        both = [
            ask("ROAD", grey, network, reverse, percentages=percentages, perturb_func=Handed(noise).imputed)
            for reverse in (False, True)
        ]
        return np.concatenate(both)

    return [
        Case("FaithfulnessCorrelation", False, one, lambda e: correlation(e, one.runs()), their_correlation),
        Case("ROAD (1 channel)", False, grey, lambda e: road(e, grey.fractions()), their_road),
    ]


def difference(ours: Tensor, theirs: Any) -> float:
    """The largest of a score, relative where it is above 1; infinite if NaN is not in the same places."""
    expected = torch.from_numpy(theirs)
    if not torch.equal(ours.isnan().cpu(), expected.isnan()) or expected.isnan().all():
        return float("inf")
    return float(((ours.cpu() - expected).abs() / expected.abs().clamp(min=1)).nan_to_num(0).max())


def timed(run: Callable[[], Any], device: str) -> float:
    """Seconds."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    if device == "cuda":
        torch.cuda.synchronize()
    started = clock()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - started


def together(cases: list[Case]) -> None:
    """All metrics, each task with one evidence."""
    shared = {id(case.task): case.task.fresh() for case in cases}
    for case in cases:
        case.ours(shared[id(case.task)])


def main() -> None:
    given = arguments()
    keep_freed_memory()  # for both
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    colour, grey = task(3, given), task(1, given)
    cases = of_maps(colour) + of_neighbours(colour) + of_removal(colour, grey)
    apart = {case.name: difference(case.ours(case.task.fresh()), case.theirs(case.task.network)) for case in cases}
    spent: dict[tuple[str, str], list[float]] = defaultdict(list)
    for _ in range(given.rounds):
        for case in cases:
            spent[case.name, "ours"].append(timed(lambda case=case: case.ours(case.task.fresh()), given.device))
            spent[case.name, "theirs"].append(timed(lambda case=case: case.theirs(case.task.theirs), given.device))
        spent["all together", "ours"].append(timed(lambda: together(cases), given.device))
    report(cases, {key: statistics.median(values) for key, values in spent.items()}, apart, given)


def report(
    cases: list[Case], spent: dict[tuple[str, str], float], apart: dict[str, float], given: argparse.Namespace
) -> None:
    each = 1000 / given.images
    spent["all together", "theirs"] = sum(spent[case.name, "theirs"] for case in cases)
    print(f"{'metric':26s} {'ours':>9s} {'Quantus':>9s}  ms an image; ratio; largest difference")
    ratios = {}
    for name in [case.name for case in cases] + ["all together"]:
        ratios[name] = spent[name, "theirs"] / spent[name, "ours"]
        told = f"{apart[name]:9.1e}" if name in apart else ""
        print(
            f"{name:26s} {each * spent[name, 'ours']:9.3f} {each * spent[name, 'theirs']:9.3f} {ratios[name]:7.2f} {told}"
        )
    alone = [case.name for case in cases if case.of_maps]
    maps = sum(spent[name, "theirs"] for name in alone) / sum(spent[name, "ours"] for name in alone)
    print(f"tolerance {TOLERANCE}: values are {'equal' if max(apart.values()) <= TOLERANCE else 'NOT EQUAL'}")
    suite = "ratio_suite" if given.device == "cpu" else "ratio_suite_gpu"
    print(
        json.dumps(
            {
                "ratio_maps": round(maps, 2),
                "ratio_models_min": round(min(ratios[case.name] for case in cases if not case.of_maps), 2),
                suite: round(ratios["all together"], 2),
                "max_difference": float(f"{max(apart.values()):.2g}"),
                "images": given.images,
                "samples": given.samples,
            }
        )
    )


if __name__ == "__main__":
    main()
