"""A fitted model as one program of torch's, for serving: ``predict_proba`` without Pyro and without this package.

An exported folder holds ``program.pt2``, a ``torch.export`` program from encoded rows to probabilities, and
``encoding.json``: the program's inputs in their order, the classes, and how raw values are encoded.  Where this package
is at hand, :func:`load` reads both and takes tables; elsewhere ``torch.export.load`` is enough::

    program = torch.export.load("served/program.pt2").module()
    probabilities = program(*tensors)  # (rows, classes)
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pyro_cama._files import placing
from pyro_cama.data.batch import Batch
from pyro_cama.data.encoder import TableEncoder
from pyro_cama.data.row_numbers import rows_text
from pyro_cama.data.tables import Table
from pyro_cama.errors import DataError
from pyro_cama.graph.causal_graph import CausalGraph
from pyro_cama.handlers.common_noise import NoCommonNoise, common_noise
from pyro_cama.handlers.contexts import fast
from pyro_cama.handlers.interventions import Do, Regime
from pyro_cama.handlers.torch_contexts import expect_default_dtype, outside
from pyro_cama.inference.chunks import chunk_size, draws_per_row
from pyro_cama.inference.class_posterior import at_mean, at_rest, averages_modes, posterior_within
from pyro_cama.inference.do import encode_do, rows_at_rest
from pyro_cama.inference.options import PredictionOptions
from pyro_cama.model.pair import ModelGuidePair

FORMAT = 2
_TORCH = 2, 13
PROGRAM, ENCODING = "program.pt2", "encoding.json"
Kind = Literal["value", "observed", "site"]
Input = tuple[Kind, str]
"""What a tensor is, and of which column: its encoded values, which of them are there, or the rows' sites."""


@dataclass(frozen=True)
class Exported:
    """An exported model, loaded.

    Attributes:
        program: from the tensors of :meth:`tensors` to probabilities ``(rows, classes)``.
        encoder: between raw units and tensors.
        inputs: what the program's arguments are, in order.
        dtype: of its floats.
        device: where it runs, which is where the model was.
        chunk: rows at a time that keep its tensors small.
    """

    program: nn.Module
    encoder: TableEncoder
    inputs: tuple[Input, ...]
    dtype: torch.dtype
    device: torch.device
    chunk: int

    @property
    def classes(self) -> tuple[Any, ...]:
        """The target's labels, in the order of the probabilities' columns."""
        graph = self.encoder.graph
        return graph.nodes[graph.target].levels or (0, 1)

    def tensors(self, data: Table) -> tuple[Tensor, ...]:
        """Returns the rows of a table, in raw units, as the program's arguments.

        Raises:
            DataError: the table does not fit the graph, or an entry is missing which the program has to be given.
        """
        expect_default_dtype()
        batch = self.encoder.encode(data, target="ignore").to(self.device, self.dtype)
        for name, known in batch.observed.items():
            if ("observed", name) not in self.inputs:
                raise DataError(
                    f"column {name!r}: found no entry in {rows_text((~known).cpu().numpy())}; this program takes "
                    "complete rows: leave these out, or export with missing=True (which counts that cause others are "
                    "not included in)"
                )
        return arguments(batch, self.inputs)

    @outside()
    @torch.no_grad()
    def predict_proba(self, data: Table) -> NDArray[np.float64]:
        """Returns p(y | x, a, c), ``(rows, classes)``, as :meth:`CAMA.predict_proba` gives it for these rows.

        Raises:
            DataError: what :meth:`tensors` raises.
        """
        parts = zip(*(tensor.split(self.chunk) for tensor in self.tensors(data)), strict=True)
        found: NDArray[np.float64] = torch.cat([self.program(*part) for part in parts]).double().cpu().numpy()
        return found


def export(
    pair: ModelGuidePair,
    folder: str | Path,
    *,
    do: Literal["auto"] | Do = "auto",
    samples: int = 16,
    m_samples: int = 4,
    power: float = 1.0,
    regime: Regime = "interventional",
    missing: bool = False,
) -> Path:
    """Writes ``predict_proba`` as a program to a new folder, which appears complete or not at all.

    The program takes any number of encoded rows, and draws nothing: the noise of ``predict_proba`` is part of it.  Its
    arguments are the encoded tensors of all nodes but the target, shapes and dtypes as
    :class:`~pyro_cama.data.batch.Batch` has them; then, with ``missing``, which entries are there, bool ``(rows,)`` a
    node; then, where m belongs to sites, their numbers, long ``(rows,)``, -1 for one that is not known.

    Args:
        do, samples, m_samples, power, regime: as :meth:`CAMA.predict_proba` takes them; ``do`` the same for all rows.
        missing: let entries be missing; slower, as their draws are made for complete rows too.  A count that causes
            other nodes cannot be missing: its draw takes steps that depend on the value.

    Raises:
        DataError: the model was not fitted.
        FileExistsError: the folder is there.
        ImportError: torch is older than 2.13.
        OSError: the disk is full, or the place cannot be written to; names the file.
        ValueError: an extension that cannot be exported, or ``do`` of single rows; says which.
    """
    _expect_torch()
    folder = Path(folder)
    budget = PredictionOptions.checked(
        "export", pair.graph, None, samples=samples, m_samples=m_samples, power=power, regime=regime
    )
    if not pair.encoder.fitted:
        raise DataError("export: this model has not seen data yet: call fit(clean) first, or load a fitted one")
    _expect_free(folder)
    given = encode_do(pair, do)
    if given and any(value.dim() > 1 for value in given.values()):
        raise ValueError("export(do=...): found a value a row, or a site; expected one for all rows")
    program = _Program(pair.copy(), given, budget, missing)
    traced = _traced(program)
    described = {
        "format": FORMAT,
        "inputs": program.inputs,
        "output": [pair.graph.target, list(pair.classes)],
        "dtype": str(pair.model.like.dtype).removeprefix("torch."),
        "device": str(pair.device),
        "chunk": chunk_size(pair, draws_per_row(pair, at_mean(pair, given, budget), budget)),
        "graph": pair.graph.to_dict(),
        "encoding": pair.encoder.state(),
    }
    packed = io.BytesIO()
    torch.export.save(traced, packed)  # to a full disk it would end the process
    folder.parent.mkdir(parents=True, exist_ok=True)
    with placing(folder) as part:
        (part / ENCODING).write_text(json.dumps(described, indent=1), encoding="utf-8")
        (part / PROGRAM).write_bytes(packed.getbuffer())
        _expect_free(folder)  # tracing takes a while
    return folder


def _expect_free(folder: Path) -> None:
    if folder.exists():
        raise FileExistsError(f"{folder} is there already; choose another folder")


def _expect_torch() -> None:
    """Refuses a torch whose export cannot trace these models, or read them back; all else runs with 2.6."""
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < _TORCH:
        needed = ".".join(map(str, _TORCH))
        raise ImportError(
            f"export: found torch {torch.__version__}; expected {needed} or newer: pip install 'torch>={needed}'"
        )


@outside()
def load(folder: str | Path) -> Exported:
    """Reads an exported model; nothing is run but ``torch.export.load``.

    Raises:
        DataError: a file is missing, damaged, or of another format; says which.
        ImportError: torch is older than 2.13.
    """
    _expect_torch()
    folder = Path(folder)
    lacking = [name for name in (PROGRAM, ENCODING) if not (folder / name).is_file()]
    if lacking:
        raise DataError(f"{folder}: no exported model, it lacks {' and '.join(lacking)}; see CAMA.export")
    try:
        stored = json.loads((folder / ENCODING).read_text(encoding="utf-8"))
        version = stored["format"]
        if version != FORMAT:
            raise DataError(
                f"{folder}: found format {version!r}; this pyro_cama reads {FORMAT}: export the model again"
            )
        encoder = TableEncoder.from_state(CausalGraph(stored["graph"]), stored["encoding"])
        inputs = tuple((kind, name) for kind, name in stored["inputs"])
        dtype, device = getattr(torch, stored["dtype"]), torch.device(stored["device"])
        chunk = int(stored["chunk"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, DataError) and "found format" in str(error):
            raise
        raise DataError(f"{folder / ENCODING} is damaged ({error}); export the model again") from error
    try:
        program = torch.export.load(folder / PROGRAM).module()
    except Exception as error:  # zip files, JSON and tensors: torch has no error of its own for them
        raise DataError(
            f"{folder / PROGRAM} is damaged ({str(error).splitlines()[0]}); export the model again"
        ) from error
    return Exported(program, encoder, inputs, dtype, device, chunk)


def arguments(batch: Batch, inputs: Iterable[Input]) -> tuple[Tensor, ...]:
    """Returns a program's arguments, ``(rows, ...)`` each, from encoded rows."""
    found = []
    for kind, name in inputs:
        if kind == "observed":
            everything = torch.ones(batch.rows, dtype=torch.bool, device=batch.values[name].device)
            found.append(batch.observed.get(name, everything))
        elif kind == "site":
            assert batch.site is not None
            found.append(batch.site)
        else:
            found.append(batch.values[name])
    return tuple(found)


class _Program(nn.Module):
    """p(y | x, a, c) as a function of tensors alone; ``pair`` is a copy, which the export may change."""

    def __init__(
        self, pair: ModelGuidePair, do: dict[str, Tensor] | None, budget: PredictionOptions, missing: bool
    ) -> None:
        super().__init__()
        # registered, so that the weights are the program's; contiguous, as torch.export.save wants all tensors
        modes = pair.modes if averages_modes(pair, do) else ()
        self.pairs = [pair, *(_at(pair.copy(), mode) for mode in modes)]
        self.parts = nn.ModuleList([one.modules.to(memory_format=torch.contiguous_format) for one in self.pairs])
        self.pair = pair
        self.do = do and {name: value.contiguous() for name, value in do.items()}
        self.budget = budget
        graph = pair.graph
        nodes = [name for name in graph.order if name != graph.target]
        self.inputs: list[Input] = [("value", name) for name in nodes]
        if missing:
            counts = {n for n in nodes if graph.nodes[n].type == "count" and pair.model.effects(n)}
            self.inputs += [("observed", name) for name in nodes if name not in counts]
        if graph.site_column is not None:
            self.inputs.append(("site", graph.site_column))
        for one in self.pairs:
            one.model.always_fill = True

    def forward(self, *tensors: Tensor) -> Tensor:
        """Returns probabilities ``(rows, classes)``; the tensors are those of ``inputs``, in their order."""
        given: dict[Kind, dict[str, Tensor]] = {"value": {}, "observed": {}, "site": {}}
        for (kind, name), tensor in zip(self.inputs, tensors, strict=True):
            given[kind][name] = tensor
        site = next(iter(given["site"].values()), None)
        batch = self.pair.seen(Batch(given["value"], given["observed"], site, tensors[0].shape[0]))
        return torch.stack([self._of_mode(pair, batch) for pair in self.pairs]).mean(0).T

    def _of_mode(self, pair: ModelGuidePair, batch: Batch) -> Tensor:
        """Returns p(y | x, a, c), ``(classes, rows)``, where m has one mode."""
        do = at_mean(pair, self.do, self.budget)
        found, resting = posterior_within(pair, batch, do, self.budget), rows_at_rest(pair, do, batch.site)
        if resting is not None:
            found = torch.where(resting, posterior_within(pair, batch, at_rest(pair, do), self.budget), found)
        return torch.softmax(found, 0)

    def example(self, rows: int) -> tuple[Tensor, ...]:
        """Returns arguments of the right shapes and dtypes."""
        graph, like = self.pair.graph, self.pair.model.like
        values = {}
        for name in graph.order:
            node = graph.nodes[name]
            dtype = torch.long if node.type == "categorical" else like.dtype
            values[name] = torch.zeros((rows, *node.event_shape), dtype=dtype, device=like.device)
        site = torch.zeros(rows, dtype=torch.long, device=like.device)
        return arguments(Batch(values, {}, site, rows), self.inputs)


def _at(pair: ModelGuidePair, mode: Mapping[str, Tensor]) -> ModelGuidePair:
    """Puts a copy at a mode of the posterior of m."""
    pair.load_manipulation(mode)
    return pair


def _traced(program: _Program) -> torch.export.ExportedProgram:
    """Traces the program for any number of rows.

    Raises:
        ValueError: torch cannot trace it, or a distribution has no fixed noise.
    """
    example = program.example(3)  # a program traced on one row would take one row only
    rows = torch.export.Dim("rows", min=1)
    pair = program.pair
    try:
        with torch.no_grad(), fast(), common_noise(pair.settings.seed, strict=True):
            program(*example)  # draws the noise, which the trace then finds there and takes for constants
            return torch.export.export(program, example, dynamic_shapes=(tuple({0: rows} for _ in example),))
    except NoCommonNoise as error:
        raise ValueError(
            f"export: {error}, so that its draws cannot be part of a program; use a distribution that does have one"
        ) from error
    except Exception as error:  # torch.export has no error of its own
        parts = ", ".join(pair.extensions.named())
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(
            f"export: torch.export cannot trace this model ({said[0]})"
            + (f"; it was built with {parts}: expected modules whose steps do not depend on values" if parts else "")
        ) from error
