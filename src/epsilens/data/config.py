"""The `data` section of params.yaml."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from epsilens.config import Section


class DataConfig(Section):
    """Which data set, and how it is split."""

    name: str
    options: dict[str, Any]  # the keyword arguments of the data set's loader
    holdout: Annotated[int, Field(ge=0)]  # training images that become the test split; 0: the source has its own
    # The last ones of the source's order; a stratified draw; such a draw of those that have a mask, which join the source's
    # own test images if it has some.
    holdout_by: Literal["last", "seed", "masked"]
    validation: Annotated[int, Field(ge=1)]  # training images on which epochs are selected
    evaluation: Annotated[int, Field(ge=1)]  # test images that are explained and scored
    evaluation_masked: bool  # draw these from the test images that have a mask only
    duplicates: Literal["refuse", "report"]  # of images that are byte for byte in two of train, validation, test
    seed: Annotated[int, Field(ge=0)]
