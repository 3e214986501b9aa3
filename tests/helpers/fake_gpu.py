"""A GPU that computes nothing: tensors have a device and a shape, and mixing devices is an error, as on a real one."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from pyro_cama import CAMA
from pyro_cama.data.batch import Batch
from pyro_cama.handlers.contexts import fast

CUDA = torch.device("cuda")


@contextmanager
def fake_gpu(cama: CAMA, rows: Batch) -> Iterator[tuple[CAMA, Batch]]:
    """Gives copies of a model and of rows that are there; no float and no bool can be read off their tensors."""
    copy = cama.copy()
    with FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv()), fast():
        for part in copy.modules.modules():
            for name, parameter in part._parameters.items():
                if parameter is not None:
                    part._parameters[name] = nn.Parameter(_there(parameter), parameter.requires_grad)
            part._buffers |= {name: _there(value) for name, value in part._buffers.items() if value is not None}
        copy.device = CUDA
        values, observed = ({name: _there(v) for name, v in of.items()} for of in (rows.values, rows.observed))
        yield copy, Batch(values=values, observed=observed, site=None, rows=rows.rows)


def _there(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=CUDA)
