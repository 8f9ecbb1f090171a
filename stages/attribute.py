"""Attribution maps of one network on the evaluation images, and pictures of the first of them."""

import torch

from epsilens import artifacts, config
from epsilens.attributions import completeness, explainers
from epsilens.attributions.axioms import verdict
from epsilens.attributions.config import AttributeConfig
from epsilens.attributions.pictures import gallery, png
from epsilens.data.manifest import read_manifest, read_split
from epsilens.data.splits import stratified
from epsilens.models.checkpoints import load
from epsilens.progress import progress
from epsilens.randomness import noise_seeds
from stages.common import cell, device, params, run


def main() -> None:
    text, _, seed = cell(__doc__)
    settings = config.section(params(), "attribute", AttributeConfig)
    network = load(artifacts.sealed(artifacts.cell(artifacts.MODELS, text, seed)), device())
    samples = read_split(artifacts.PREPARED, "evaluation").to(device())
    images, seeds = samples.pixels(), noise_seeds(settings.seed, samples.ids)
    with torch.no_grad():
        logits = torch.cat([network(part) for part in images.split(settings.batch_size)])
    targets, confidence = logits.argmax(dim=1), logits.softmax(dim=1).amax(dim=1)

    count = len(samples) * len(settings.methods)
    with progress(f"attribute epsilon {text}, seed {seed}", count, "maps") as done:
        methods = explainers(network, settings, lambda: read_split(artifacts.PREPARED, "train").images, done)
        maps = {name: explain(images, targets, seeds) for name, explain in methods.items()}
    errors = completeness(network, settings, images, targets, maps)
    folder = artifacts.cell(artifacts.ATTRIBUTIONS, text, seed)
    artifacts.write_tensors(folder / artifacts.MAPS, maps)
    index = {"image": samples.ids, "label": samples.labels, "target": targets}
    index |= {f"completeness_error.{name}": found for name, found in errors.items()}
    artifacts.write_rows(folder / artifacts.INDEX, {name: column.tolist() for name, column in index.items()})
    artifacts.seal(folder)

    names = read_manifest(artifacts.PREPARED)["class_names"]
    shown_count = min(settings.gallery, len(samples))
    rows = stratified(samples.labels.cpu(), shown_count, settings.seed, "gallery").nonzero().flatten().tolist()
    shown = artifacts.cell(artifacts.GALLERY, text, seed)
    for stem, picture in gallery(samples.images, maps, rows):
        artifacts.write_bytes(shown / f"{stem}.png", png(picture))
    captions = [
        {
            "row": row,
            "id": int(samples.ids[row]),
            "label": names[samples.labels[row]],
            "prediction": names[targets[row]],
            "confidence": round(float(confidence[row]), 4),
        }
        for row in rows
    ]
    artifacts.write_json(shown / artifacts.GALLERY_INDEX, {"methods": list(maps), "images": captions})
    artifacts.seal(shown)
    for name, found in errors.items():
        print(verdict(name, found))
    print(
        f"{len(samples)} images explained by {', '.join(maps)}; {int((targets == samples.labels).sum())} predicted right"
    )


if __name__ == "__main__":
    run(main)
