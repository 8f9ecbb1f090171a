"""The `model` section of params.yaml."""

from __future__ import annotations

from typing import Any

from epsilens.config import Section


class ModelConfig(Section):
    """name: a key of MODELS; options: the keyword arguments of that factory."""

    name: str
    options: dict[str, Any]
