"""The choice of an algorithm: the cheapest that can serve, is accurate enough and fits the memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from .algorithm import PLAIN, Algorithm, Epilogue, Plan
from .errors import RejectedError, UnsupportedError
from .machine import local_machine, machine_of
from .problem import ConvProblem, Op
from .registry import algorithm_names, algorithms

# Largest error over the root mean square of the result that `auto` accepts unless told, by the size of a real number.
# The results of 16-bit types round by up to 2**-8 of themselves.
ERROR_BUDGET = {2: 5e-2, 4: 1e-4, 8: 1e-12}
TF32_BUDGET = 5e-3  # where products may be rounded to 11 bits
# Scratch memory that `auto` accepts, in bytes: of one thread, or of a whole call on a CUDA device.
WORKSPACE_LIMIT = {"cpu": 64 << 20, "cuda": 1 << 30}


@dataclass(frozen=True)
class Candidate:
    """One algorithm as the selector sees it.

    Attributes
    ----------
    name
        The algorithm.
    refusal
        Why it cannot serve or may not be taken, or None.
    seconds
        Predicted time; infinite where it cannot serve.
    error_bound
        Expected error over the root mean square of the result; infinite where it cannot serve.
    workspace_bytes
        Scratch memory of one thread; 0 where it cannot serve.
    """

    name: str
    refusal: str | None
    seconds: float = float("inf")
    error_bound: float = float("inf")
    workspace_bytes: int = 0


@dataclass(frozen=True)
class Explanation:
    """What `auto` takes for a problem, and why it does not take the others; `str` of it is a table.

    Attributes
    ----------
    problem, op
        What is to be computed.
    algorithm
        The name of the one that is taken.
    candidates
        Every algorithm of the device, by name.
    remark
        What else there is to say, or nothing.
    """

    problem: ConvProblem
    op: Op
    algorithm: str
    candidates: Mapping[str, Candidate]
    remark: str = ""

    def __str__(self) -> str:
        lines = [f"{self.op.value} of {self.problem}", f"auto takes: {self.algorithm}"]
        for candidate in sorted(self.candidates.values(), key=lambda each: each.seconds):
            price = "" if candidate.seconds == float("inf") else f"{candidate.seconds * 1e3:10.3f} ms predicted, "
            lines.append(f"  {candidate.name:<9}{price}{self._verdict(candidate)}")
        return "\n".join([*lines, *([self.remark] if self.remark else [])])

    __repr__ = __str__

    def _verdict(self, candidate: Candidate) -> str:
        if candidate.refusal is not None:
            return f"not taken: {candidate.refusal}"
        best = self.candidates[self.algorithm]
        facts = f"error {candidate.error_bound:.1e}, workspace {candidate.workspace_bytes / 1024:.0f} KiB a thread"
        if candidate is best:
            return f"taken: the cheapest ({facts})"
        return f"not taken: {candidate.seconds / best.seconds:.1f} times the price ({facts})"


def explain_problem(problem: ConvProblem, op: Op, rtol: float | None = None, device: str = "cpu") -> Explanation:
    """Ask every algorithm its price and take the cheapest that is allowed."""
    if problem.multiplications == 0:
        raise UnsupportedError(f"{op.value} of {problem} has nothing to multiply and needs no algorithm")
    candidates = {each.name: _candidate(each, problem, op, rtol) for each in algorithms(device)}
    allowed = [each for each in candidates.values() if each.refusal is None]
    if not allowed and rtol is None:
        candidates = _with_most_accurate(candidates, device)
        allowed = [each for each in candidates.values() if each.refusal is None]
    if not allowed:
        reasons = "; ".join(f"{each.name}: {each.refusal}" for each in candidates.values())
        raise UnsupportedError(f"no algorithm serves {op.value} of {problem}: {reasons}")
    return Explanation(problem, op, min(allowed, key=lambda each: each.seconds).name, candidates)


def _with_most_accurate(candidates: dict[str, Candidate], device: str) -> dict[str, Candidate]:
    """The candidates, the most accurate that fits accepted: sums of very many terms err by more than the budget."""
    fitting = [each for each in candidates.values() if each.workspace_bytes <= WORKSPACE_LIMIT[device]]
    serving = [each for each in fitting if each.error_bound < float("inf")]
    if not serving:
        return candidates
    best = min(serving, key=lambda each: each.error_bound)
    return candidates | {best.name: dataclasses.replace(best, refusal=None)}


def _candidate(algorithm: Algorithm, given: ConvProblem, op: Op, rtol: float | None = None) -> Candidate:
    problem = computed_by(algorithm, given)
    refusal = algorithm.supports(problem, op)
    if refusal is not None:
        return Candidate(algorithm.name, refusal)
    error = algorithm.error_bound(problem, op)
    workspace = algorithm.workspace(problem, op)
    usual = TF32_BUDGET if given.dtype == "tf32" else ERROR_BUDGET[problem.real_bytes]
    budget = usual if rtol is None else rtol
    if error > budget:
        refusal = f"its error of {error:.1e} exceeds {budget:.0e}"
    elif workspace > WORKSPACE_LIMIT[algorithm.device]:
        refusal = f"its workspace of {workspace} bytes exceeds {WORKSPACE_LIMIT[algorithm.device]}"
    seconds = algorithm.cost(problem, op, machine_of(algorithm.device))
    return Candidate(algorithm.name, refusal, seconds, error, workspace)


def computed_by(algorithm: Algorithm, problem: ConvProblem) -> ConvProblem:
    """The problem in the type that an algorithm's kernels take: CUDA's widen elements as they load them."""
    if algorithm.device == "cpu":
        return problem.computed
    return problem if problem.dtype != "tf32" or algorithm.rounds else problem.replace(dtype="float32")


@lru_cache(maxsize=1024)
def plan_for(
    problem: ConvProblem,
    op: Op,
    algorithm: str = "auto",
    epilogue: Epilogue = PLAIN,
    rtol: float | None = None,
    device: str = "cpu",
) -> Plan:
    """The plan of a named algorithm, or of the one that `auto` takes within `rtol`.

    Raises
    ------
    UnsupportedError
        If the named algorithm cannot serve, or none is accurate enough; the message gives the reasons.
    """
    require_support(algorithm, problem, op, device)
    name = explain_problem(problem, op, rtol, device).algorithm if algorithm == "auto" else algorithm
    chosen = find(name, device)
    return chosen.plan(computed_by(chosen, problem), op, epilogue)


@lru_cache(maxsize=1024)
def contained_plan_for(problem: ConvProblem, op: Op, epilogue: Epilogue = PLAIN) -> Plan:
    """The cheapest plan among the algorithms that keep a NaN where it belongs, whatever their rounding error."""
    candidates = [_candidate(each, problem, op) for each in algorithms() if not each.spreads]
    return plan_for(problem, op, min(candidates, key=lambda each: each.seconds).name, epilogue)


def seconds_alone(problem: ConvProblem, op: Op, algorithm: str) -> float:
    """Predicted time of an algorithm on one thread."""
    machine = dataclasses.replace(local_machine(), threads=1)
    return find(algorithm).cost(problem.computed, op, machine)


def require_support(algorithm: str, problem: ConvProblem, op: Op, device: str = "cpu") -> None:
    """Raise UnsupportedError, with the reason, if an algorithm was asked for by name and cannot serve."""
    if algorithm != "auto":
        asked = find(algorithm, device)
        refusal = asked.supports(computed_by(asked, problem), op)
        if refusal is not None:
            raise UnsupportedError(f"algorithm={algorithm!r}: {refusal}  [problem: {problem}, {op.value}]")


def find(name: str, device: str = "cpu") -> Algorithm:
    """The algorithm of that name on a device."""
    for algorithm in algorithms(device):
        if algorithm.name == name:
            return algorithm
    raise RejectedError("algorithm", name, f"must be one of {', '.join(algorithm_names(device))}")
