"""Sanity: whether an explanation depends on what it is said to explain, the class and the trained network.

The other map is made with the same noise as the map: what depends on neither class nor network is then the same map twice,
and has 1, which is the score of knowing nothing.
"""

from __future__ import annotations

from epsilens.metrics.weights import pixel_weights, spearman
from epsilens.types import Attributions, Scores


def class_sensitivity(attributions: Attributions, other: Attributions) -> Scores:
    """Spearman's correlation of the pixel weights with those of the map of another class, `[N]` in [-1, 1] (cf. Sixt et al.
    2020, arXiv:1912.09818).

    other: maps of the class that the network holds for second most likely. 1 for a method that does not look at the class.
    NaN for an all-zero or constant map on either side.
    """
    return spearman(pixel_weights(attributions).flatten(1), pixel_weights(other).flatten(1))


def randomisation(attributions: Attributions, other: Attributions) -> Scores:
    """Spearman's correlation of the pixel weights with those of the map of a network with random weights, `[N]` in [-1, 1]
    (Adebayo et al. 2018, arXiv:1810.03292).

    other: maps of the same class. 1 for a method that does not look at the weights. NaN for an all-zero or constant map on
    either side.
    """
    return spearman(pixel_weights(attributions).flatten(1), pixel_weights(other).flatten(1))
