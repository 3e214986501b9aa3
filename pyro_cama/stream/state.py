"""A monitor's state: one file, written whole or not at all, from which a stream goes on to the very same steps.

Tensors are safetensors', all else is JSON in the file's header; reading runs no code.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as unpacked
from safetensors.torch import save as packed
from torch import Tensor

from pyro_cama._files import replacing
from pyro_cama.adaptation.result import Adaptation
from pyro_cama.data.batch import Batch
from pyro_cama.errors import DataError
from pyro_cama.model.pair import ModelGuidePair
from pyro_cama.stream.change import Calibration, ChangeTest, Urns
from pyro_cama.stream.course import Course, Recent
from pyro_cama.stream.regimes import Regime

FORMAT = 2
_URNS = ("evidence", "strangeness")


def fingerprint(pair: ModelGuidePair) -> str:
    """Returns a hash of a model's graph, classes and weights."""
    found = hashlib.sha256(json.dumps(pair.graph.to_dict()).encode())
    for name, value in pair.modules.state_dict().items():
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def write(course: Course, path: Path, model: str, asked: Mapping[str, Any]) -> None:
    """Writes where a stream is.

    Args:
        course: to write.
        path: the file; what is there is replaced.
        model: :func:`fingerprint` of the model.
        asked: the monitor's options.

    Raises:
        OSError: the file cannot be written; names it.
    """
    tensors: dict[str, Tensor] = {}
    for regime in course.bank:
        if regime.trusted:
            tensors |= {f"regime {regime.number}.{name}": value for name, value in regime.state.items()}
            for k, mode in enumerate(regime.modes):
                tensors |= {f"mode {k} of regime {regime.number}.{name}": value for name, value in mode.items()}
        if regime.calibration is not None:
            tensors |= _arrays(regime.calibration, f"calibration {regime.number}.")
    recent, test = course.recent, course.test
    for name in ("steps", "labels", "bins"):
        tensors[f"recent.{name}"] = torch.from_numpy(getattr(recent, name))
    if recent.rows is not None:
        tensors |= {f"values.{name}": value for name, value in recent.rows.values.items()}
        tensors |= {f"observed.{name}": value for name, value in recent.rows.observed.items()}
    for name in ("capital", "runs", "began"):
        tensors[f"test.{name}"] = torch.from_numpy(getattr(test, name))
    told = {
        "format": FORMAT,
        "model": model,
        "asked": dict(asked),
        "steps": course.steps,
        "present": course.present,
        "following": course.following,
        "entered": course.entered,
        "since": course.since,
        "test": {"level": test.level, "batches": test.batches, "reserve": test.reserve},
        "regimes": [_told(regime) for regime in course.bank],
    }
    content = packed(
        {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()},
        {"monitor": json.dumps(told)},
    )
    with replacing(path) as part:
        part.write_bytes(content)


def _arrays(calibration: Calibration, prefix: str) -> dict[str, Tensor]:
    found = {"strange": torch.from_numpy(calibration.strange)}
    for kind in _URNS:
        urns: Urns = getattr(calibration, kind)
        found |= {f"{kind}.{field.name}": torch.from_numpy(getattr(urns, field.name)) for field in fields(urns)}
    return {f"{prefix}{name}": value for name, value in found.items()}


def _calibration(rows: int, arrays: Mapping[str, Tensor]) -> Calibration:
    urns = [Urns(**{f.name: arrays[f"{kind}.{f.name}"].numpy() for f in fields(Urns)}) for kind in _URNS]
    return Calibration(urns[0], urns[1], arrays["strange"].numpy(), rows)


def _told(regime: Regime) -> dict[str, Any]:
    """What of a regime is no tensor."""
    record = None if regime.adaptation is None else asdict(regime.adaptation)
    return {
        "number": regime.number,
        "reads_as": regime.reads_as,
        "trained": sorted(regime.trained),
        "overlaid": sorted(regime.overlaid),
        "modes": len(regime.modes),
        "calibration": None if regime.calibration is None else regime.calibration.rows,
        "class_prior": regime.class_prior,
        "adaptation": record,
        "came": regime.came,
        "visits": regime.visits,
        "seen": regime.seen,
    }


def read(path: Path, model: str, asked: Mapping[str, Any], device: torch.device) -> Course:
    """Returns where a stream was; arguments as :func:`write`.

    Raises:
        DataError: the file is damaged, or of another format.
        ValueError: it is the state of another model, or of a monitor with other options; says which.
    """
    with _damage(path):
        content = path.read_bytes()
        (size,) = struct.unpack("<Q", content[:8])
        told = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["monitor"])
        version, of_model, earlier = told["format"], told["model"], told["asked"]
    if version != FORMAT:
        raise DataError(f"{path}: found format {version!r}; this pyro_cama reads {FORMAT}: begin anew, or install it")
    if of_model != model:
        raise ValueError(f"{path} is the state of a stream that another model reads; expected this one's: name another")
    if earlier != (own := json.loads(json.dumps(dict(asked)))):
        apart = sorted(name for name in {*earlier, *own} if earlier.get(name) != own.get(name))
        said = ", ".join(f"{name}={earlier.get(name)!r} there, {own.get(name)!r} here" for name in apart)
        raise ValueError(f"{path}: found the state of a monitor with other options ({said}); expected the same")
    with _damage(path):
        return _course(told, unpacked(content), device)


def _course(told: Mapping[str, Any], tensors: Mapping[str, Tensor], device: torch.device) -> Course:
    def under(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

    bank: dict[int, Regime] = {}
    for one in sorted(told["regimes"], key=lambda one: (one["reads_as"] != one["number"], one["number"])):
        number, own = one["number"], one["reads_as"] == one["number"]
        shared = bank.get(one["reads_as"])
        state = under(f"regime {number}.") if own or shared is None else shared.state
        modes = tuple(under(f"mode {k} of regime {number}.") for k in range(one["modes"]))
        arrays, count = under(f"calibration {number}."), one["calibration"]
        calibration = None if count is None else _calibration(count, arrays)
        record = None if one["adaptation"] is None else Adaptation.from_json(one["adaptation"])
        bank[number] = Regime(
            number=number,
            reads_as=one["reads_as"],
            state=state,
            modes=modes if own or shared is None else shared.modes,
            trained=frozenset(one["trained"]),
            overlaid=frozenset(one["overlaid"]),
            calibration=calibration,
            class_prior=tuple(one["class_prior"]),
            adaptation=record,
            came=one["came"],
            visits=one["visits"],
            seen=one["seen"],
        )
    recent = {name: tensors[f"recent.{name}"].numpy() for name in ("steps", "labels", "bins")}
    values, observed = ({n: v.to(device) for n, v in under(f"{kind}.").items()} for kind in ("values", "observed"))
    rows = Batch(values, observed, None, len(recent["steps"])) if len(recent["steps"]) else None
    earned: dict[str, Any] = {name: value.numpy() for name, value in under("test.").items()}
    test = ChangeTest(**told["test"], **earned)
    return Course(
        steps=told["steps"],
        bank=tuple(bank[number] for number in sorted(bank)),
        present=told["present"],
        following=told["following"],
        test=test,
        entered=told["entered"],
        recent=Recent(rows, **recent),
        since=told["since"],
    )


@contextmanager
def _damage(file: Path) -> Iterator[None]:
    """Turns what goes wrong inside into a DataError about the file."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, SafetensorError, struct.error) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else str(error).split("\n")[0]
        raise DataError(f"{file} is damaged ({what}); delete it to begin anew") from error
