"""Residual encoders and decoders of images of ``size: base``."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import pyro_cama
from pyro_cama import CausalGraph, GraphError, build
from pyro_cama.graph.nodes import Node
from pyro_cama.networks.image_layers import initialise_weights
from pyro_cama.networks.images import (
    ImageDecoder,
    ImageEncoder,
    decode_images,
    decoder_of,
    encode_images,
    encoder_of,
)
from pyro_cama.networks.residual import ResidualBlock, ResidualDecoder, ResidualEncoder
from pyro_cama.persistence.export import load
from tests.helpers.images import BERNOULLI, QUICK, spec, table
from tests.helpers.networks import networks


@settings(max_examples=20)
@given(st.integers(1, 33), st.integers(1, 33), st.integers(1, 3), st.integers(1, 2))
def test_they_take_any_size(height: int, width: int, channels: int, numbers: int) -> None:
    node = Node("i", "image", shape=(channels, height, width), channels=2, size="base")
    assert encode_images(encoder_of(node, 5), torch.rand(3, 1, 2, *node.event_shape)).shape == (3, 1, 2, 5)
    decoder = decoder_of(node, numbers)
    assert isinstance(decoder, ResidualDecoder)
    out = decode_images(decoder, torch.randn(3, 1, 2, decoder.inputs), node.event_shape)
    assert out.shape == (3, 1, 2, channels, height, width, numbers)


def test_the_size_chooses_the_networks() -> None:
    node = Node("i", "image", shape=(3, 32, 32))
    assert type(encoder_of(node, 5)) is ImageEncoder
    assert type(decoder_of(node, 1)) is ImageDecoder
    base = Node("i", "image", shape=(3, 32, 32), size="base")
    encoder = encoder_of(base, 5)
    assert type(encoder) is ResidualEncoder
    widths = [part.out_channels for part in encoder.convolutions if isinstance(part, nn.Conv2d)]
    assert widths == [32, 64, 64]


def test_a_block_starts_as_the_identity_and_learns() -> None:
    block = ResidualBlock(4)
    initialise_weights(block)  # as a graph with images does once more
    maps = torch.randn(2, 4, 5, 5)
    torch.testing.assert_close(block(maps), maps, rtol=0, atol=0)
    block(maps).square().sum().backward()
    assert block.gain.grad is not None
    assert block.gain.grad != 0


def test_small_is_the_default_and_draws_the_same_weights() -> None:
    """Named or not."""
    first, second = (
        build(spec({"i": {**BERNOULLI, **more}}, ["y -> i"]), hidden=8, device="cpu").modules.state_dict()
        for more in ({}, {"size": "small"})
    )
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_a_model_is_stored_and_exported(tmp_path: Path) -> None:
    graph: dict[str, Any] = spec({"i": {**BERNOULLI, "size": "base"}}, ["y -> i"])
    cama = build(graph, hidden=8, layers=1, device="cpu")
    cama.fit(table(), max_epochs=2, conditional_share=1.0, conditional_power=0.1, paired=True, **QUICK)
    gains = [part.gain for part in networks(cama.model)["decoders"]["i"].layers if isinstance(part, ResidualBlock)]
    assert gains
    assert all(gain != 0 for gain in gains)
    expected = cama.predict_proba(table(seed=1))
    cama.save(tmp_path / "model")
    loaded = pyro_cama.load(tmp_path / "model", device="cpu")
    assert loaded.graph.nodes["i"].size == "base"
    np.testing.assert_array_equal(loaded.predict_proba(table(seed=1)), expected)
    program = load(cama.export(tmp_path / "served"))
    np.testing.assert_allclose(program.predict_proba(table(seed=1)), expected, atol=1e-5)


def test_a_graphs_size_is_read_written_and_checked(tmp_path: Path) -> None:
    raw = spec({"i": {**BERNOULLI, "size": "base"}}, ["y -> i"])
    graph = CausalGraph(raw)
    assert graph.to_dict()["nodes"]["i"]["size"] == "base"
    assert CausalGraph.from_yaml(graph.to_yaml()).nodes["i"].size == "base"
    assert "size" not in CausalGraph(spec({"i": BERNOULLI}, ["y -> i"])).to_dict()["nodes"]["i"]
    with pytest.raises(GraphError, match=r"node 'i': size: found 'bse'; .*did you mean 'base'\?"):
        CausalGraph(spec({"i": {**BERNOULLI, "size": "bse"}}, ["y -> i"]))
    with pytest.raises(GraphError, match=r"node 'i': size: found 3; expected 'small' or 'base'"):
        CausalGraph(spec({"i": {**BERNOULLI, "size": 3}}, ["y -> i"]))
    with pytest.raises(GraphError, match=r"node 'x': found key 'size'; expected, for type continuous, only dim"):
        CausalGraph(spec({"x": {"type": "continuous", "size": "base"}}, ["y -> x"]))
    (tmp_path / "g.dot").write_text('digraph { y [type=binary, size="2,2"]; x [type=continuous, size=20]; y -> x }')
    assert CausalGraph.from_file(tmp_path / "g.dot", "y").nodes["x"].type == "continuous"  # Graphviz's sizes are layout
