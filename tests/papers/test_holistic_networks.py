"""The networks that Holistic lists have the parameters it lists, and its three blocks are what their names say."""

from __future__ import annotations

import numpy as np
import pytest

from tinyqnn import Tensor, models
from tinyqnn.models.resnet import ResNet
from tinyqnn.papers.holistic import _networks as networks


def millions(model):
    return sum(p.size for p in model.parameters()) / 1e6


@pytest.mark.parametrize("row", networks.TABLE_1, ids=lambda row: f"{row.name}-{row.width}")
def test_table_1_comes_out_to_its_last_digit(row):
    """44.549 million is listed as 44.6; all others are rounded as one would."""
    model = row.model()
    assert model.depth == row.depth
    assert abs(millions(model) - row.millions) < 0.052


@pytest.mark.parametrize("row", networks.TABLE_5, ids=lambda row: f"{row.block}-{row.depth}")
def test_table_5_comes_out_nearly(row):
    """The paper does not say how shortcuts change shape, nor what is inside a depthwise block."""
    allowed = 0.16 if row.block == "depthwise" else 0.0125
    assert abs(millions(row.model()) / row.millions - 1) < allowed


def test_the_ring_networks_have_what_appendix_a_says():
    """In thousands, cut off: 81K and 66K."""
    assert [int(1000 * millions(models.FCDNN(width, depth))) for width, depth in ((200, 4), (128, 6))] == [81, 66]


@pytest.mark.parametrize("block", ["basic", "preact", "depthwise"])
def test_the_last_stage_sees_a_quarter_of_the_picture_four_times_as_wide(block, rng):
    model = ResNet(depth=11 if block == "depthwise" else 8, width=4, block=block, rng=rng)
    x = Tensor(rng.normal(size=(2, 3, 16, 16)).astype(np.float32))
    assert model(x).shape == (2, 10)
    h = model.conv1(x)
    for stage in (model.layer1, model.layer2, model.layer3):
        h = stage(h)
    assert h.shape == (2, 16, 4, 4)


@pytest.mark.parametrize(("block", "positive"), [("basic", True), ("preact", False), ("depthwise", False)])
def test_only_the_basic_blocks_sum_goes_through_a_relu(block, positive, rng):
    model = ResNet(depth=11 if block == "depthwise" else 8, width=4, block=block, rng=rng)
    x = Tensor(rng.normal(size=(2, 4, 8, 8)).astype(np.float32))
    assert bool((model.layer1(x).data >= 0).all()) is positive


def test_a_depth_that_no_number_of_blocks_makes_is_refused_with_those_that_do():
    with pytest.raises(ValueError, match=r"depthwise blocks has depth 9n \+ 2 \(11, 20, 29"):
        ResNet(depth=14, block="depthwise")
    with pytest.raises(ValueError, match="basic, preact, depthwise"):
        ResNet(block="dense")


def test_the_imagenet_network_shrinks_its_picture_by_32(rng):
    model = models.ImageNetResNet([1, 1, 1, 1], width=4, bottleneck=True, classes=7, rng=rng)
    x = Tensor(rng.normal(size=(1, 3, 64, 64)).astype(np.float32))
    assert model.blocks(model.stem(x)).shape == (1, 4 * 8 * 4, 2, 2)
    assert model(x).shape == (1, 7)
