"""Remove what is damaged, for `dvc repro` or `dvc pull` to bring back: objects of DVC's cache that are not what their names
say (DVC takes them for what was put there), and output folders that differ from their checksums."""

import hashlib
import shutil
from pathlib import Path

from epsilens import artifacts
from epsilens.errors import DataError
from stages.common import project_root, run

CACHE = Path(".dvc/cache/files/md5")
OUTPUTS = (artifacts.PREPARED, artifacts.MODELS, Path("results"))


def damaged_objects(cache: Path) -> list[Path]:
    """Objects whose MD5 is not their name: `<two digits>/<thirty digits>`, with `.dir` at the end of a folder's listing."""
    return [path for path in sorted(cache.glob("??/*")) if path.parent.name + path.stem != _md5(path)]


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def damaged_folders() -> list[Path]:
    """Output folders of the working copy in which a file is missing, or other than it was when the folder was sealed."""
    return [seal.parent for root in OUTPUTS for seal in sorted(root.rglob(artifacts.SEAL)) if _broken(seal.parent)]


def _broken(folder: Path) -> bool:
    try:
        artifacts.sealed(folder)
    except DataError:
        return True
    return False


def main() -> None:
    objects, folders = damaged_objects(project_root() / CACHE), damaged_folders()
    for path in objects:
        path.unlink()
        print(f"removed from DVC's cache: {path.parent.name}{path.name}")
    for folder in folders:
        shutil.rmtree(folder)
        print(f"removed: {folder}")
    print("`dvc repro` or `dvc pull` brings it back" if objects or folders else "nothing is damaged")


if __name__ == "__main__":
    run(main)
