"""Draw what each metric sees, for docs/metrics.md: an image of `shapes`, a map that scores well, one that does not.

    python scripts/metric_pictures.py    # about a minute on one core; writes docs/metrics/*.png

Two networks are trained here, at ε = 0 and ε = 4. Shown is the image, of those that both classify rightly, on which the two
maps differ most in the first metric of the picture: a picture says what a metric sees, not how often.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from metric_cases import CASES, Case, Side
from metric_panels import image, picture
from metric_views import CLASSES
from torch import nn

from epsilens import artifacts, config, models
from epsilens.attacks import ThreatModel
from epsilens.attributions import explainer
from epsilens.attributions.randomise import randomised
from epsilens.data import shapes
from epsilens.data.manifest import channel_statistics
from epsilens.errors import DataError
from epsilens.metrics import METRICS, score
from epsilens.metrics.evidence import Evidence
from epsilens.models.folding import Folded
from epsilens.randomness import noise_seeds
from epsilens.training import TrainConfig, Trainer
from epsilens.training.distribution import World
from epsilens.types import Samples

ROOT = Path(__file__).resolve().parent.parent
IMAGES, EPOCHS, WIDTH = 3000, 6, 16  # as the default study has them, but for half the width
CUE = 16.0  # amplitude in 1/255, twice the default study's: the narrow network learns it in as many epochs
SHOWN = 64  # images to choose from


def train(epsilon: float, images: int, epochs: int) -> tuple[nn.Module, Samples]:
    """A network of the default study, but narrower, and its test images."""
    study = config.read(ROOT / "studies" / "shapes.yaml")
    given = study["data"]["options"] | {"train": images, "cue_amplitude_255": CUE}
    source = shapes.load(Path(), **given)
    assert source.test is not None
    settings = config.section(study, "train", TrainConfig).model_copy(update={"epochs": epochs})
    options = study["model"]["options"] | {"width": WIDTH}
    network = models.build(study["model"]["name"], options, len(CLASSES), *channel_statistics(source.train.images), 0)
    threat = ThreatModel.of(study["threat"]["norm"], epsilon)
    trainer = Trainer(network, threat, settings, seed=0, world=World("cpu"), view=Folded)
    for _ in range(epochs):
        print(f"ε = {epsilon:g}:", trainer.epoch(source.train, source.test[:100], lambda: None), flush=True)
    return trainer.average, source.test


@dataclass(frozen=True)
class Study:
    """Networks by their training epsilon, and the images that all of them classify rightly."""

    networks: Mapping[float, nn.Module]
    samples: Samples

    @classmethod
    @torch.no_grad()
    def of(cls, networks: Mapping[float, nn.Module], samples: Samples) -> Study:
        """The first of the images that all networks classify rightly. Raises DataError if there is none."""
        right = [network(samples.pixels()).argmax(dim=1) == samples.labels for network in networks.values()]
        common = torch.stack(right).all(dim=0).nonzero().flatten()[:SHOWN]
        if not len(common):
            raise DataError("no image is classified rightly by all networks: nothing can be drawn")
        return cls(networks, samples[common])

    def evidence(self, side: Side) -> Evidence:
        """The maps of one side, and all that its metrics need."""
        network, labels = self.networks[side.epsilon].eval(), self.samples.labels
        images, seeds = self.samples.pixels(), noise_seeds(0, self.samples.ids)
        explain, control = (explainer(each, side.method, {}, SHOWN) for each in (network, randomised(network, 0)))
        maps = explain(images, labels, seeds)
        found = Evidence(
            images, labels, maps, self.samples.masks, seeds, network, explain, SHOWN, seeds, lambda _: control
        )
        return side.change(found)


def draw(study: Study, case: Case) -> bytes:
    """The picture of one case. Raises DataError if its first metric is defined on no image of both sides."""
    sides = {side.label: study.evidence(side) for side in (case.better, case.worse)}
    one, other = (score(evidence, case.asked()) for evidence in sides.values())
    first = case.metrics[0]
    gap = (one[first] - other[first]) * (-1 if METRICS[first].facts.better == "lower" else 1)
    if gap.isnan().all():
        raise DataError(f"{first}: is defined on none of {len(gap)} images")
    row = int(gap.nan_to_num(-torch.inf).argmax())
    scores = {name: (float(one[name][row]), float(other[name][row])) for name in case.metrics}
    label, mask = CLASSES[int(study.samples.labels[row])], study.samples.masks[row]
    left = image(f"input, “{label}”", study.samples.pixels()[row], mask if case.given == "outlined" else None)
    return picture(
        None if case.given == "nothing" else left,
        {name: case.show(evidence, row) for name, evidence in sides.items()},
        scores,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "metrics", help="folder of the pictures")
    parser.add_argument("--only", choices=CASES, nargs="+", default=list(CASES), help="draw these only")
    given = parser.parse_args()
    torch.set_num_threads(1)  # the same weights on every machine of one kind
    trained = {epsilon: train(epsilon, IMAGES, EPOCHS) for epsilon in (0.0, 4.0)}
    study = Study.of({epsilon: network for epsilon, (network, _) in trained.items()}, trained[0.0][1])
    for name in given.only:
        artifacts.write_bytes(given.out / f"{name}.png", draw(study, CASES[name]))
        print(given.out / f"{name}.png")


if __name__ == "__main__":
    main()
