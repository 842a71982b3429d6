"""The figures of many seeds: what was passed, what was hit, and which situations of moves were met."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from kstate.testing.exposure import Combination
from kstate.testing.named_steps import leader_steps, worker_steps
from kstate.testing.simulation import Outcome


@dataclass(slots=True)
class Summary:
    """The figures of many seeds."""

    seeds: int = 0
    steps: int = 0
    landed: Counter[str] = field(default_factory=Counter)
    coverage: Counter[tuple[str, str]] = field(default_factory=Counter)
    hit: Counter[tuple[str, str]] = field(default_factory=Counter)
    combinations: Counter[Combination] = field(default_factory=Counter)
    """Situations of moves → in how many seeds they were met."""
    answers: Counter[str] = field(default_factory=Counter)

    def add(self, outcome: Outcome) -> None:
        """One more seed."""
        self.seeds += 1
        self.steps += outcome.steps
        self.landed += outcome.landed
        self.coverage += outcome.coverage
        self.hit += outcome.hit
        self.combinations.update(outcome.combinations.keys())
        self.answers += outcome.answers

    def never_taken(self) -> list[tuple[str, str]]:
        """Steps that exist and were not taken in any seed, as (role, step)."""
        steps = [("worker", step) for step in worker_steps()] + [("leader", step) for step in leader_steps()]
        return sorted(step for step in steps if not self.coverage[step])

    def __str__(self) -> str:
        rows = [f"{'step':32}{'taken':>9}{'hit':>7}"]
        rows += [
            f"{role + ' ' + step:32}{taken:>9}{self.hit[role, step]:>7}"
            for (role, step), taken in sorted(self.coverage.items())
            if role != "outside" and step != "beat"
        ]
        mean = f"mean {self.steps / self.seeds:.0f} steps and {self.landed.total() / self.seeds:.1f} faults that landed"
        stages = Counter(combination.stage for combination in self.combinations)
        met = f"moves: {len(self.combinations)} situations were met, by stage: {_listed(stages)}"
        told = [f"faults: {_listed(self.landed)}", f"orders: {_listed(self.answers)}", met]
        return "\n".join([*rows, *told, f"{self.seeds} seeds, {mean} per seed"])


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in counts.most_common()) or "none"
