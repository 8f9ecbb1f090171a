"""Read or generate the data set, split it, and write splits and manifest."""

from epsilens import artifacts, config, data
from epsilens.data import manifest, splits
from epsilens.data.config import DataConfig
from stages.common import data_root, params, run


def main() -> None:
    settings = config.section(params(), "data", DataConfig)
    source = data.load(settings, data_root())
    parts = splits.split(source, settings)
    facts = manifest.manifest(settings, source, parts)
    manifest.write(artifacts.PREPARED, facts, parts)
    for name, part in facts["splits"].items():
        print(f"{name}: {part['images']} images, {part['masks']} with a mask")
    for what, found in facts.get("boxes", {}).items():
        print(f"boxes: {what.replace('_', ' ')}: {found}")
    if skipped := facts.get("skipped"):
        print(f"note: {len(skipped)} images cannot be read and were left out, e.g. {', '.join(skipped[:3])}")
    for pair, found in facts["duplicates"].items():
        if found["images"]:
            print(f"note: {found['images']} identical images in {pair}, e.g. {found['examples'][:3]}")


if __name__ == "__main__":
    run(main)
