"""Pictures of maps and of images, the names they get in the gallery, and the settings that those names come from."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from epsilens import config
from epsilens.attributions import ATTRIBUTIONS, check, explainer, explainers
from epsilens.attributions.config import AttributeConfig
from epsilens.attributions.pictures import NEGATIVE, POSITIVE, gallery, image_picture, map_picture, png
from epsilens.errors import ConfigError, DataError

WHITE = [255, 255, 255]


def test_full_colour_at_both_ends_white_at_zero_and_half_way_between() -> None:
    attribution = torch.tensor([[[-2.0, 0.0, 1.0], [2.0, -1.0, 2.0]]])
    picture = map_picture(attribution)
    assert picture.dtype == np.uint8
    assert picture.shape == (2, 3, 3)
    assert picture[0, 0].tolist() == NEGATIVE.tolist()
    assert picture[0, 1].tolist() == WHITE
    assert picture[1, 0].tolist() == POSITIVE.tolist()
    np.testing.assert_allclose(picture[0, 2], (255 + POSITIVE) / 2, atol=0.5)
    np.testing.assert_allclose(picture[1, 1], (255 + NEGATIVE) / 2, atol=0.5)


def test_channels_are_summed_with_their_signs() -> None:
    attribution = torch.tensor([[[3.0, -1.0]], [[-3.0, 0.5]], [[0.0, -0.5]]])
    picture = map_picture(attribution)
    assert picture[0, 0].tolist() == WHITE
    assert picture[0, 1].tolist() == NEGATIVE.tolist()


def test_an_all_zero_map_is_white() -> None:
    assert (map_picture(torch.zeros(3, 4, 5)) == 255).all()


def test_one_outlier_does_not_hide_the_rest() -> None:
    attribution = torch.ones(1, 20, 30)
    attribution[0, 7, 9] = -1e6
    picture = map_picture(attribution)
    assert picture[0, 0].tolist() == POSITIVE.tolist()
    assert picture[7, 9].tolist() == NEGATIVE.tolist()


def test_a_single_pixel_that_is_not_zero_is_shown() -> None:
    attribution = torch.zeros(2, 20, 30)
    attribution[1, 4, 5] = 0.25
    picture = map_picture(attribution)
    assert picture[4, 5].tolist() == POSITIVE.tolist()
    assert (picture.reshape(-1, 3) != 255).any(axis=1).sum() == 1


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_the_scale_of_a_map_does_not_show(scale: float) -> None:
    attribution = torch.randn(3, 6, 9, dtype=torch.float64)
    np.testing.assert_allclose(map_picture(scale * attribution).astype(int), map_picture(attribution), atol=1)


def test_blue_is_negative_and_the_two_ends_differ_for_every_eye() -> None:
    """The ends differ in blue, which red-green blindness leaves, and by sign in the obvious channel."""
    assert NEGATIVE[2] > NEGATIVE[0]
    assert POSITIVE[0] > POSITIVE[2]
    assert abs(int(POSITIVE[2]) - int(NEGATIVE[2])) > 100


def test_an_image_keeps_its_bytes() -> None:
    colour = torch.randint(0, 256, (3, 4, 5), dtype=torch.uint8)
    assert image_picture(colour).tolist() == colour.permute(1, 2, 0).tolist()
    grey = torch.randint(0, 256, (1, 4, 5), dtype=torch.uint8)
    assert image_picture(grey).tolist() == grey[0][:, :, None].expand(4, 5, 3).tolist()


@pytest.mark.parametrize("channels", [2, 4])
def test_an_image_of_other_channels_is_refused(channels: int) -> None:
    with pytest.raises(DataError, match=f"{channels} channels"):
        image_picture(torch.zeros(channels, 4, 5, dtype=torch.uint8))


def test_png_holds_the_picture_and_nothing_else() -> None:
    picture = image_picture(torch.randint(0, 256, (3, 4, 5), dtype=torch.uint8))
    content = png(picture)
    assert content == png(picture.copy())
    with Image.open(io.BytesIO(content)) as opened:
        assert np.asarray(opened).tolist() == picture.tolist()
        assert not opened.info


def test_the_gallery_names_rows_and_methods(tmp_path: Path) -> None:
    images = torch.randint(0, 256, (4, 1, 6, 5), dtype=torch.uint8)
    maps = {"gradient": torch.randn(4, 1, 6, 5), "integrated_gradients@blur": torch.randn(4, 1, 6, 5)}
    found = dict(gallery(images, maps, [2, 0]))
    assert set(found) == {f"{row}-{name}" for row in (0, 2) for name in ("input", *maps)}
    assert found["2-input"].tolist() == image_picture(images[2]).tolist()
    for row in (0, 2):
        for name, attributions in maps.items():
            assert found[f"{row}-{name}"].tolist() == map_picture(attributions[row]).tolist()
    for stem, picture in found.items():
        (tmp_path / f"{stem}.png").write_bytes(png(picture))
    assert {path.stem for path in tmp_path.iterdir()} == set(found)


def test_no_rows_give_no_pictures() -> None:
    assert not dict(gallery(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), {}, range(0)))


def settings(**methods: Any) -> AttributeConfig:
    raw = {"attribute": {"batch_size": 2, "gallery": 1, "seed": 0, "methods": methods}}
    return config.section(raw, "attribute", AttributeConfig)


def test_explainers_are_named_as_in_the_settings_and_keep_their_own_options() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(40, 5), nn.Tanh()).eval().requires_grad_(False)
    arguments = torch.rand(3, 2, 5, 4), torch.tensor([2, 0, 3]), torch.tensor([11, 3, 8])
    given = {"smoothgrad": {"samples": 2, "sigma": 0.1}, "smoothgrad@wide": {"samples": 2, "sigma": 0.5}}
    found = explainers(network, settings(**given))
    assert list(found) == list(given)
    for name, options in given.items():
        assert torch.equal(found[name](*arguments), explainer(network, name, options, 2)(*arguments))


def test_check_accepts_labels_and_every_right_option() -> None:
    right = {"smoothgrad": {"samples": 5, "sigma": 0.3}, "integrated_gradients@K-3.1": {"steps": 3}}
    check(settings(gradient={}, **right))


def test_check_reports_every_problem_together() -> None:
    wrong = settings(
        gradiant={},
        gradient={"abs": True},
        smoothgrad={"samples": 0, "sigma": 0.0},
        integrated_gradients={},
        sobel={},
    )
    with pytest.raises(ConfigError) as raised:
        check(wrong)
    text = str(raised.value)
    for part in (
        "attribute.methods.gradiant: found 'gradiant'",
        "did you mean 'gradient'",
        "attribute.methods.gradient.abs: unknown key",
        "attribute.methods.smoothgrad.samples",
        "attribute.methods.smoothgrad.sigma",
        "attribute.methods.integrated_gradients.steps: missing key",
    ):
        assert part in text
    assert "sobel" not in text.replace("random, sobel", "")


@pytest.mark.parametrize("name", ["gradient@", "gradient@../up", "gradient@a b", "gradient@x\n"])
def test_check_refuses_a_label_that_is_no_part_of_a_file_name(name: str) -> None:
    with pytest.raises(ConfigError, match=r"attribute\.methods\.gradient") as raised:
        check(settings(**{name: {}}))
    assert str(raised.value).count("params.yaml:") == 1


@pytest.mark.parametrize(
    "wrong", [{"batch_size": 0}, {"gallery": -1}, {"seed": -1}, {"methods": {}}, {"methods": {"gradient": None}}]
)
def test_the_section_refuses_what_is_out_of_range(wrong: dict[str, Any]) -> None:
    raw = {"batch_size": 2, "gallery": 0, "seed": 0, "methods": {"gradient": {}}, **wrong}
    with pytest.raises(ConfigError, match=f"attribute.{next(iter(wrong))}"):
        config.section({"attribute": raw}, "attribute", AttributeConfig)


@pytest.mark.parametrize("name", ATTRIBUTIONS)
def test_an_entry_says_what_a_reader_needs(name: str) -> None:
    entry = ATTRIBUTIONS[name]
    assert entry.kind in ("method", "control")
    assert entry.label
    assert entry.source
    assert entry.function.__doc__
