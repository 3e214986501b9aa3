"""Whether an adaptation can be trusted: checks of evidence, agreement, class proportions and recovery."""

from __future__ import annotations

import math

from torch import Tensor

from pyro_cama.adaptation.result import Candidate, CrossFit
from pyro_cama.inference.comparison import compare

CONSISTENT = 0.75  # share of rows with equal labels
WORTH = 0.05  # nats a row: a smaller gain is not worth a change, however certain


def judge(
    before: Candidate,
    best: Candidate,
    candidates: list[Candidate],
    fit: CrossFit,
    expected: Tensor,
    *,
    insisted: bool = False,
    unmoved: str = "",
    agree: float = CONSISTENT,
    recover: float = 0.1,
) -> tuple[bool, str, float]:
    """Judges whether the best candidate can be trusted: ``(accepted, reason, agreement)``.

    Adapted to the other folds, it must explain held-out new rows better than no adaptation does, by more than a
    standard error; starts that explain the rows about as well must give the same labels, and so must the adaptation to
    the other folds; class proportions must be plausible; and the adapted model must still recognise the class of what
    it generates, else m has learned to redraw the children.

    Args:
        before: the unadapted model.
        best: the candidate of the highest evidence.
        candidates: all starts.
        fit: the new rows under the best start, adapted to other rows than they.
        expected: class proportions to be expected, ``(classes,)``: the training ones, or those the user gave.
        insisted: the rows insist on the best candidate's class proportions (:func:`insists`).  Proportions far from the
            expected ones are no objection then, nor where they are nearer to those than without the change.
        unmoved: what explains the rows without a manipulation, as the reason; empty where nothing does.
        agree: least share of rows with equal labels among the starts of about equal evidence.
        recover: largest loss of recovery; a larger one counts where two standard errors leave no doubt of it, for what
            is moved out of the picture is hard to recognise, whatever m does.
    """
    gain, se = compare(fit.evidence, before.evidence)
    rivals = [c for c in candidates if c is not best and _about_equal(best, c)]
    others = [fit.labels, *(rival.labels for rival in rivals)]
    agreement = min(float((labels == best.labels).float().mean()) for labels in others)
    moved = total_variation(best.proportions, expected)
    believed = insisted or moved <= total_variation(before.proportions, expected)
    if fit.evidence.isnan().all():
        reason = f"found {len(best.labels)} rows, too few to hold any out; a few dozen are worth adapting to"
    elif not math.isfinite(gain):
        reason = "the evidence of the held-out rows is not finite: look for extreme values in them"
    elif gain <= max(se, WORTH):
        reason = f"held-out evidence did not improve ({gain:+.2f} nats a row, standard error {se:.2f})"
    elif unmoved:
        reason = unmoved
    elif agreement < agree:
        reason = f"starts of about equal evidence, or parts of the rows, agree on {agreement:.0%} of the labels only"
    elif moved > proportion_tolerance(best.counted or len(best.labels)) and not believed:
        found = f"class proportions would be {_percent(best.proportions)}, expected about {_percent(expected)}"
        reason = f"{found} (pass class_prior= if they did change)"
    elif before.recovery - best.recovery > recover + 2 * _recovery_se(before, best):
        reason = (
            f"m would redraw the children: the class of generated rows is recovered in {best.recovery:.0%} "
            f"({before.recovery:.0%} before)"
        )
    else:
        share = "are consistent" if agreement >= CONSISTENT else f"of {1 - agreement:.0%} of the rows are averaged"
        return True, f"held-out evidence improved by {gain:.2f} nats a row, and the labels {share}", agreement
    return False, reason, agreement


def insists(best: Candidate, anchored: Candidate) -> bool:
    """Returns whether the rows insist on class proportions: their evidence is higher by three standard errors.

    Args:
        best: its proportions were free.
        anchored: adapted from no manipulation, the class proportions held at the expected ones.
    """
    over, se = compare(best.evidence - best.penalty, anchored.evidence - anchored.penalty)
    return over > 3 * se


def total_variation(proportions: Tensor, expected: Tensor) -> float:
    """Returns the total-variation distance of class proportions."""
    return float((proportions.cpu() - expected.cpu()).abs().sum()) / 2


def proportion_tolerance(rows: int) -> float:
    """Returns the largest total-variation distance that needs no proof: 0.15, beside sampling noise."""
    return 0.15 + rows**-0.5


def _recovery_se(*candidates: Candidate) -> float:
    """Standard error of a difference of recoveries."""
    return sum(c.recovery * (1 - c.recovery) / c.generated for c in candidates if c.generated) ** 0.5


def _percent(proportions: Tensor) -> str:
    return "/".join(f"{p:.0%}" for p in proportions.tolist())


def _about_equal(best: Candidate, other: Candidate) -> bool:
    gap, se = compare(best.evidence - best.penalty, other.evidence - other.penalty)
    return gap <= se
