"""Causal graphs: their format, their Markov blanket, their files and their picture.  Nothing here needs torch.

A graph file is YAML (see :class:`CausalGraph` for networkx and files of other tools)::

    target: diagnosis
    nodes:
      age:        {type: continuous}            # or just `age: continuous`
      smoker:     {type: categorical, levels: ["no", "yes"]}
      diagnosis:  {type: categorical, levels: [benign, malignant]}
      radius:     {type: continuous}
      scan:       {type: image, shape: [1, 28, 28]}
    edges:
      - age -> diagnosis -> radius              # a chain: two edges
      - [diagnosis, scan]                       # names may hold any text this way
      - smoker -> radius
    latents:                                    # optional; left out, z and m cause every child
      z: {dim: 8}
      m:
        dim: 4
        manipulation: true
        children: [radius, scan]
        scope: row
        mechanism: {radius: affine, scan: warp}

The keys of a node:

- ``type``: continuous, categorical, binary, count or image;
- ``dim``: of a vector, for continuous and count; left out, the node is a scalar;
- ``levels``: for categorical (two or more) and binary (two, by default 0 and 1), in the order of their codes;
- ``shape``: ``[channels, height, width]``, for images; ``channels``: of its convolutions, 32 where left out;
  ``size``: of the networks that read and draw it, ``small`` (the default) or ``base``, with residual blocks;
- ``likelihood``: the name of a likelihood, where the default is not meant;
- ``scale``: of a continuous node, ``identity``, ``log`` (positive readings), ``signed_log`` or ``auto``, the default,
  which the training rows choose.  Mechanisms act on that scale: on a logarithmic one a change of gain is an offset.

The keys of a latent: ``dim``, ``children`` (some of the target's); for the style, ``effect`` (``auto``, the default:
``linear`` where it can then be summed out exactly, else ``deep``, the paper's network) and ``loadings`` of a linear one
(``shared`` by the classes, the default, or every ``class``'s own); and for the manipulation,
``manipulation: true``, ``scope`` (``row``, ``dataset`` or the name of a column), ``mechanism`` (by default
affine, rate, confusion or warp, after the child's type; ``warp+intensity`` is one after the other, of an image also
``warp+blur+illumination+overlay``, for which ``auto`` stands) and
``affects`` (``quantity``, the default, or ``measurement``), the last two one for all children or a mapping by
child.  A manipulation that goes with the class has an edge from the target into it, ``diagnosis -> m`` (or the key
``parents: [diagnosis]``), or a latent that causes both and nothing else, ``u: {causes: [diagnosis, m]}``; both give the
same model.  ``z: null`` drops a latent; a latent of another name replaces ``z``, or ``m`` if it says
``manipulation: true``.

Text that YAML reads as something else needs quotes: yes, no, on, off, numbers, dates.
"""

from pyro_cama.graph.causal_graph import CausalGraph
from pyro_cama.graph.drawing import draw_graph
from pyro_cama.graph.nodes import Blanket, Latent, Node

__all__ = ["Blanket", "CausalGraph", "Latent", "Node", "draw_graph"]
