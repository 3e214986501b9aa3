"""Models on disk: a folder with graph.yaml, settings.json and tensors.safetensors.  Loading executes nothing."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pyro_cama.data import TableEncoder
from pyro_cama.errors import DataError
from pyro_cama.graph import CausalGraph

if TYPE_CHECKING:
    from pyro_cama.cama import CAMA

FORMAT = 1
FILES = ("graph.yaml", "settings.json", "tensors.safetensors")


def save(cama: CAMA, folder: str | Path, *, overwrite: bool = False) -> Path:
    """Writes a model to a new folder; the folder appears complete or not at all.

    Raises:
        FileExistsError: the folder is there and ``overwrite`` is False, or it is there and holds something else.
    """
    folder = Path(folder)
    if folder.exists():
        if not overwrite:
            raise FileExistsError(f"{folder} is there already; pass overwrite=True, or choose another folder")
        if not folder.is_dir() or any(p.name not in FILES for p in folder.iterdir()):
            raise FileExistsError(f"{folder} holds something other than a saved model; choose another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        cama.graph.to_yaml(part / "graph.yaml")
        adaptation = cama.adaptation
        settings = {
            "format": FORMAT,
            "settings": asdict(cama.settings),
            "dtype": str(cama.model.like.dtype).removeprefix("torch."),
            "extensions": cama.extensions.named(),
            "m_trained": cama.m_trained,
            "encoder": cama.encoder.state(),
            "adaptation": None if adaptation is None else asdict(adaptation),
        }
        (part / "settings.json").write_text(json.dumps(settings, indent=1), encoding="utf-8")
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in _state(cama).items()}
        save_file(tensors, part / "tensors.safetensors")
        for name in FILES:
            with open(part / name, "rb+") as file:
                os.fsync(file.fileno())
        if folder.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
            os.replace(folder, old / "model")
            os.replace(part, folder)
            shutil.rmtree(old)
        else:
            os.chmod(part, 0o755)
            os.replace(part, folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return folder


def load(folder: str | Path, *, device: str | torch.device = "auto", **extensions: Any) -> CAMA:
    """A saved model.

    Args:
        folder: as :meth:`CAMA.save` wrote it.
        device: "auto" takes a GPU where there is one.
        extensions: ``guide=``, ``model=``, ``mechanisms=``, ``likelihoods=``, ``networks=`` as ``build`` was given them;
            code is never loaded from a folder.

    Raises:
        DataError: a file is missing, damaged or of a newer format, or an extension is not given; says which.
    """
    from pyro_cama.adaptation import Adaptation
    from pyro_cama.cama import CAMA, Extensions, Settings

    folder = Path(folder)
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        what = f"lacks {', '.join(missing)}" if folder.is_dir() else "is not a folder"
        raise DataError(f"{folder}: no saved model, it {what}; expected {', '.join(FILES)}")
    try:
        stored = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        found = stored["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder / 'settings.json'} is damaged ({error}); save the model again") from None
    if found != FORMAT:
        raise DataError(
            f"{folder}: format {found!r}, this version of pyro_cama reads format {FORMAT}; install a newer one, or save "
            "the model again"
        )
    graph = CausalGraph(folder / "graph.yaml")
    given = Extensions(**extensions)
    if given.named() != stored.get("extensions", []):
        raise DataError(
            f"{folder}: the model was built with {', '.join(stored.get('extensions', [])) or 'no extensions'}; found "
            f"{', '.join(given.named()) or 'none'}: pass load(folder, ...) what build() was given"
        )
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        encoder = TableEncoder.from_state(graph, stored["encoder"])
        dtype = getattr(torch, stored["dtype"])
        cama = CAMA(graph, Settings(**stored["settings"]), given, torch.device(device), encoder, dtype)
        tensors = load_file(folder / "tensors.safetensors")
        state = cama.modules.state_dict()
        for name, tensor in _state(cama).items():
            if tensors[name].shape != tensor.shape:
                raise ValueError(f"{name} has shape {tuple(tensors[name].shape)}, expected {tuple(tensor.shape)}")
        cama.modules.load_state_dict({name: tensors[_first(cama)[name]] for name in state})
        cama.m_trained = bool(stored["m_trained"])
        kept = stored["adaptation"]
        if kept is not None:
            cama.adaptation = Adaptation(**{k: tuple(v) if isinstance(v, list) else v for k, v in kept.items()})
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, SafetensorError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{folder} is damaged ({type(error).__name__}: {error}); save the model again") from None
    return cama


def _first(cama: CAMA) -> dict[str, str]:
    """Of every tensor's names the first: model and guide share modules, and a tensor is stored once."""
    names: dict[str, str] = {}
    by_tensor: dict[int, str] = {}
    for name, tensor in cama.modules.state_dict(keep_vars=True).items():
        names[name] = by_tensor.setdefault(id(tensor), name)
    return names


def _state(cama: CAMA) -> dict[str, torch.Tensor]:
    state = cama.modules.state_dict(keep_vars=True)
    return {name: state[name] for name in dict.fromkeys(_first(cama).values())}
