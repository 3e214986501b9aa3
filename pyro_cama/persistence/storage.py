"""Models on disk: a folder of graph.yaml, settings.json and tensors.safetensors.  Loading runs no code."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as packed

from pyro_cama._files import placing
from pyro_cama.adaptation.result import Adaptation
from pyro_cama.data.encoder import TableEncoder
from pyro_cama.errors import DataError
from pyro_cama.graph.causal_graph import CausalGraph
from pyro_cama.inference.novelty import USUAL
from pyro_cama.model.pair import Extensions, ModelGuidePair, PairT, Settings, device_named

FORMAT = 11
FILES = ("graph.yaml", "settings.json", "tensors.safetensors")


def save(pair: ModelGuidePair, adaptation: Adaptation | None, folder: str | Path, *, overwrite: bool = False) -> Path:
    """Writes a model to a new folder; the folder appears complete or not at all.

    Raises:
        FileExistsError: the folder is there and ``overwrite`` is False, or it holds something else.
        OSError: the disk is full, or the place cannot be written to; names the file.
    """
    folder = Path(folder)
    _expect_free(folder, overwrite)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with placing(folder) as part:
        write_files(pair, adaptation, part)
        _expect_free(folder, overwrite)  # writing takes a while
    return folder


def _expect_free(folder: Path, overwrite: bool) -> None:
    if not folder.exists():
        return
    if not overwrite:
        raise FileExistsError(f"{folder} is there already; pass overwrite=True, or choose another folder")
    if not folder.is_dir() or any(p.name not in (*FILES, USUAL) for p in folder.iterdir()):
        raise FileExistsError(f"{folder} holds something other than a saved model; choose another folder")


def write_files(pair: ModelGuidePair, adaptation: Adaptation | None, folder: Path) -> None:
    """Writes the files of a model, :data:`FILES`, to a folder that is there.

    Raises:
        OSError: the folder cannot be written to.
    """
    pair.graph.to_yaml(folder / "graph.yaml")
    settings = {
        "format": FORMAT,
        "graph": _fingerprint(pair.graph),
        "settings": asdict(pair.settings),
        "dtype": str(pair.model.like.dtype).removeprefix("torch."),
        "extensions": pair.extensions.named(),
        "trained": sorted(pair.trained),
        "overlaid": sorted(pair.overlaid),
        "modes": len(pair.modes),
        "usual_evidence": None if math.isnan(pair.usual_evidence) else pair.usual_evidence,
        "encoder": pair.encoder.state(),
        "adaptation": None if adaptation is None else asdict(adaptation),
    }
    (folder / "settings.json").write_text(json.dumps(settings, indent=1), encoding="utf-8")
    stored = _state(pair) | {
        f"mode {k}.{name}": value for k, mode in enumerate(pair.modes) for name, value in mode.items()
    }
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in stored.items()}
    # written by Python: of a full disk safetensors raises an error of its own
    (folder / "tensors.safetensors").write_bytes(packed(tensors))


def read(
    kind: type[PairT], folder: str | Path, *, device: str | torch.device = "auto", **extensions: Any
) -> tuple[PairT, Adaptation | None]:
    """Returns a saved model as a ``kind`` of pair, and the adaptation that made it; see :func:`pyro_cama.load`.

    Raises:
        DataError: a file is missing, damaged or of a newer format, or an extension is not given; says which.
    """
    folder = Path(folder)
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        what = f"lacks {', '.join(missing)}" if folder.is_dir() else "is not a folder"
        raise DataError(f"{folder}: no saved model, it {what}; expected {', '.join(FILES)}")
    file = folder / "settings.json"
    with _damage(file):
        stored = json.loads(file.read_text(encoding="utf-8"))
        version, of_graph, built = stored["format"], stored.get("graph"), list(stored.get("extensions", []))
    if version != FORMAT:
        older = isinstance(version, int) and version < FORMAT
        remedy = "fit and save the model again with this one" if older else "install a newer one"
        raise DataError(f"{folder}: found format {version!r}; this pyro_cama reads {FORMAT}: {remedy}")
    file = folder / "graph.yaml"
    with _damage(file):
        graph = CausalGraph(file)
    if of_graph != _fingerprint(graph):
        raise DataError(
            f"{file} is not the graph the model was saved with; put that back, or fit a new model to this one"
        )
    given = Extensions(**extensions)
    if given.named() != built:
        raise DataError(
            f"{folder}: the model was built with {', '.join(built) or 'no extensions'}; found "
            f"{', '.join(given.named()) or 'none'}: pass load(folder, ...) what build() was given"
        )
    with _damage(folder / "settings.json"):
        encoder = TableEncoder.from_state(graph, stored["encoder"])
        dtype = getattr(torch, stored["dtype"])
        pair = kind(graph, Settings(**stored["settings"]), given, device_named(device), encoder, dtype)
        pair.trained, pair.overlaid = frozenset(stored["trained"]), frozenset(stored["overlaid"])
        modes = int(stored["modes"])
        usual = stored["usual_evidence"]
        pair.usual_evidence = math.nan if usual is None else float(usual)
        kept = stored["adaptation"]
        adaptation = None if kept is None else Adaptation.from_json(kept)
    file = folder / "tensors.safetensors"
    with _damage(file):
        tensors = load_file(file)
        moving = {name: value.detach() for name, value in pair.manipulation_parameters().items()}
        of_modes = [{name: f"mode {k}.{name}" for name in moving} for k in range(modes)]
        for name, tensor in [
            *_state(pair).items(),
            *((key, moving[n]) for mode in of_modes for n, key in mode.items()),
        ]:
            found, expected = tuple(tensors[name].shape), tuple(tensor.shape)
            if found != expected:
                raise ValueError(f"{name} has shape {found}, expected {expected}")
        pair.modules.load_state_dict({name: tensors[first] for name, first in _first(pair).items()})
        pair.modes = tuple({name: tensors[key].to(moving[name]) for name, key in mode.items()} for mode in of_modes)
    return pair, adaptation


@contextmanager
def _damage(file: Path) -> Iterator[None]:
    """Turns what goes wrong inside into a DataError about the file."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, SafetensorError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else str(error).split("\n")[0]
        raise DataError(f"{file} is damaged ({what}); save the model again") from error


def _fingerprint(graph: CausalGraph) -> str:
    """Returns a hash of what a graph says, however its file is written."""
    return hashlib.sha256(json.dumps(graph.to_dict()).encode()).hexdigest()


def _first(pair: ModelGuidePair) -> dict[str, str]:
    """Maps every tensor's names to the first of them: model and guide share modules, and a tensor is stored once."""
    names: dict[str, str] = {}
    by_tensor: dict[int, str] = {}
    for name, tensor in pair.modules.state_dict(keep_vars=True).items():
        names[name] = by_tensor.setdefault(id(tensor), name)
    return names


def _state(pair: ModelGuidePair) -> dict[str, torch.Tensor]:
    state = pair.modules.state_dict(keep_vars=True)
    return {name: state[name] for name in dict.fromkeys(_first(pair).values())}
