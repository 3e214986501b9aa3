"""Images in files: what a column of paths may point at, and folders of images as tables.

An image node of shape ``[channels, height, width]`` takes files that Pillow reads (PNG, JPEG, BMP, TIFF, WebP, ...):

- 8 bits a channel (or 1, or a palette); 0 to 255 become 0 to 1;
- of exactly ``width`` x ``height`` pixels, nothing is resized or cropped;
- converted to grey if ``channels`` is 1, to red, green and blue if it is 3, other numbers cannot be read from files;
  what is transparent is taken as if it were not;
- of several frames the first; an orientation noted by a camera is not applied.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pyro_cama._messages import listed
from pyro_cama.errors import DataError
from pyro_cama.graph.causal_graph import CausalGraph
from pyro_cama.graph.nodes import Node

_MODES = {1: "L", 3: "RGB"}
_EIGHT_BITS = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV")


def read_image(path: str | os.PathLike[str], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Reads an image file to an array of this shape, (channels, height, width).

    Raises:
        DataError: no such file, one that is no image or damaged, another size, more than 8 bits a channel, or a shape
            of other than 1 or 3 channels.
    """
    from PIL import Image

    channels, height, width = shape
    if channels not in _MODES:
        raise DataError(
            f"{path}: found a path for an image of {channels} channels; expected 1 or 3 channels: give an array"
        )
    try:
        with Image.open(path) as image:
            if image.size != (width, height):
                found = f"{image.width}x{image.height}"
                raise DataError(f"{path}: found {found} pixels; expected {width}x{height}: resize the image")
            if image.mode not in _EIGHT_BITS:
                raise DataError(
                    f"{path}: found intensities of mode {image.mode}; expected 8 bits a channel: convert the image"
                )
            pixels = np.asarray(image.convert(_MODES[channels]))
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; correct the path, or set it to NaN if the image is missing") from None
    except Exception as error:  # a damaged file can make a decoder raise almost anything
        raise DataError(f"{path}: cannot be read as an image ({error}); expected a PNG, JPEG or the like") from error
    return np.ascontiguousarray(pixels.reshape(height, width, channels).transpose(2, 0, 1))


def image_table(folder: str | os.PathLike[str], graph: CausalGraph) -> pd.DataFrame:
    """Makes a table of a folder of images with one subfolder a class: paths, and subfolders' names as labels.

    The layout is that of ``torchvision.datasets.ImageFolder``, which lists the files. Every subfolder is a
    level of the target; a level need not have one.  Images without a label stand in the folder itself: the table then
    has their paths alone, by name.

    Raises:
        DataError: no such folder, no images in it, a graph with other than one image node, or a subfolder whose name
            is no level of the target.
    """
    from torchvision.datasets import ImageFolder  # type: ignore[import-untyped]
    from torchvision.datasets.folder import IMG_EXTENSIONS  # type: ignore[import-untyped]

    path = Path(folder)
    if not path.is_dir():
        raise DataError(f"{path}: no such folder; expected one with a subfolder of images for every class")
    try:
        found = ImageFolder(str(path), allow_empty=True)
    except FileNotFoundError as error:
        alone = sorted(str(one) for one in path.iterdir() if one.suffix.lower() in IMG_EXTENSIONS)
        if alone:
            return pd.DataFrame({image_node(graph, str(path)).name: pd.Series(alone, dtype=object)})
        raise DataError(
            f"{path}: found no subfolder and no image; expected one with images for every class, or images without "
            "labels"
        ) from error
    return labelled_paths(found.samples, found.classes, graph, str(path))


def labelled_paths(samples: Any, classes: Any, graph: CausalGraph, name: str) -> pd.DataFrame:
    """Makes the table of an ``ImageFolder``'s samples, pairs of path and number of class, and classes.

    Raises:
        DataError: what :func:`image_table` raises.
    """
    node, target = image_node(graph, name), graph.nodes[graph.target]
    levels = [str(level) for level in target.levels or ()]
    if unknown := [label for label in classes if label not in levels]:
        raise DataError(
            f"{name}: found subfolders {listed(unknown)}; expected levels of the target {target.name!r}, "
            f"{listed(levels)}: rename them, or correct the graph"
        )
    if not samples:
        raise DataError(f"{name}: found no images in the subfolders {listed(classes)}; expected some")
    return pd.DataFrame(
        {
            node.name: pd.Series([path for path, _ in samples], dtype=object),
            target.name: pd.Series([classes[number] for _, number in samples], dtype=object),
        }
    )


def image_node(graph: CausalGraph, name: str) -> Node:
    """Returns the one image node of a graph; ``name`` is what messages call the folder.

    Raises:
        DataError: there is none, or several.
    """
    nodes = [graph.nodes[node] for node in graph.order if graph.nodes[node].is_image]
    if len(nodes) != 1:
        raise DataError(
            f"{name}: found {len(nodes)} image nodes in the graph; expected one for a folder of images: "
            "give a table with a column of paths for each"
        )
    return nodes[0]
