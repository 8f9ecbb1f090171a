"""The maps of the same images side by side: columns are training epsilons, rows are attributions."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

Gallery = tuple[Mapping[str, Any], Mapping[str, bytes]]  # gallery.json, and PNG bytes by stem


def arrange(galleries: Mapping[Any, Gallery], facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One entry an image (by its id, in the order of the first gallery): label, input, and a cell a method and epsilon.

    A picture that a gallery lacks is None.
    """
    ordered = sorted(((float(epsilon), gallery) for epsilon, gallery in galleries.items()), key=lambda item: item[0])
    ids = dict.fromkeys(image["id"] for _, (card, _) in ordered for image in card["images"])
    methods = list(dict.fromkeys(method for _, (card, _) in ordered for method in card["methods"]))
    known = {method: facts["attributions"].get(method, {}) for method in methods}
    ranked = dict(sorted(known.items(), key=lambda item: _is_control(item[1])))  # controls below the methods
    return [_image(identity, ordered, ranked) for identity in ids]


def _is_control(fact: Mapping[str, Any]) -> bool:
    return fact.get("kind") == "control"


def _image(identity: int, ordered: list[tuple[float, Gallery]], facts: Mapping[str, Any]) -> dict[str, Any]:
    found = [(epsilon, _find(card, identity), pictures) for epsilon, (card, pictures) in ordered]
    present = [(image, pictures) for _, image, pictures in found if image is not None]
    first, first_pictures = present[0]
    return {
        "id": identity,
        "label": first["label"],
        "input": _uri(first_pictures, f"{first['row']}-input"),
        "columns": [_column(epsilon, image) for epsilon, image, _ in found],
        "rows": [
            {
                "method": fact.get("label", name),
                "control": _is_control(fact),
                "cells": [image and _uri(pictures, f"{image['row']}-{name}") for _, image, pictures in found],
            }
            for name, fact in facts.items()
        ],
    }


def _find(card: Mapping[str, Any], identity: int) -> Mapping[str, Any] | None:
    return next((image for image in card["images"] if image["id"] == identity), None)


def _column(epsilon: float, image: Mapping[str, Any] | None) -> dict[str, Any]:
    if image is None:
        return {"epsilon": epsilon, "prediction": None}
    right = image["prediction"] == image["label"]
    return {"epsilon": epsilon, "right": right, "prediction": image["prediction"], "confidence": image["confidence"]}


def _uri(pictures: Mapping[str, bytes], stem: str) -> str | None:
    picture = pictures.get(stem)
    return None if picture is None else "data:image/png;base64," + base64.b64encode(picture).decode()
