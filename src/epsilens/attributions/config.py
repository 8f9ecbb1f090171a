"""The `attribute` section of params.yaml."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from epsilens.config import Section


class AttributeConfig(Section):
    """methods: a key of ATTRIBUTIONS (with an optional @label) to its options, in the order of the report's rows.

    batch_size bounds the images in one pass through the network; no value depends on it. gallery: images shown.
    """

    batch_size: Annotated[int, Field(ge=1)]
    gallery: Annotated[int, Field(ge=0)]
    seed: Annotated[int, Field(ge=0)]
    methods: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
