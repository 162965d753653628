"""What an examination has found, as a table for people and as JSON for scripts."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Result = Literal["yes", "no", "refused", "ignored", "failed", "not tried"]
"""`refused`: the server says that it doesn't do it. `ignored`: it answers as if it had not been asked to. `no`: what
came isn't what was asked for. `failed`: an error that says nothing about the ability."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. `seconds` is how long its requests took, if there were any."""

    check: str
    result: Result
    detail: str = ""
    seconds: float | None = None


@dataclass(slots=True)
class Report:
    """Everything that was found about one model. Nothing in it is a secret.

    `address` is None for the provider's own. `settings` are lines for `.env`; `notes` say what the findings mean.
    """

    model: str
    local: bool
    address: str | None = None
    usable: bool = False
    findings: list[Finding] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float | None = None

    def as_json(self) -> str:
        """One JSON object."""
        return json.dumps(asdict(self), ensure_ascii=False)

    def as_table(self) -> str:
        """The same for people."""
        place = "offline" if self.local else f"at {self.address or 'its provider'}"
        lines = [f"{self.model}, {place}"] + ([""] if self.findings else [])
        checks = max((len(finding.check) for finding in self.findings), default=0)
        for finding in self.findings:
            took = "" if finding.seconds is None else f"{finding.seconds:.1f} s"
            lines.append(f"  {finding.check:<{checks}}  {finding.result:<9}  {took:>7}  {finding.detail}".rstrip())
        for note in self.notes:
            lines += ["", note]
        if self.settings:
            lines += ["", "Set this in .env:", *(f"  {name}={value}" for name, value in self.settings.items())]
        elif self.usable and not self.local:
            lines += ["", "Nothing has to be set."]
        lines += ["", self._summary()]
        return "\n".join(lines)

    def _summary(self) -> str:
        usable = "The model can be used." if self.usable else "The model can't be used."
        if self.local or not self.requests:
            return usable
        cost = "" if self.cost_usd is None else f", {self.cost_usd:.6f} US dollars"
        tokens = self.input_tokens + self.output_tokens
        plural = "" if self.requests == 1 else "s"
        return f"{usable} ({self.requests} request{plural}, {tokens:,} tokens{cost})"


def cleaned(report: Report, hide: Any) -> Report:
    """The report with `hide` applied to all of its texts."""
    for name in ("model", "address", "settings", "notes"):
        setattr(report, name, hide(getattr(report, name)))
    report.findings = [
        Finding(finding.check, finding.result, hide(finding.detail), finding.seconds) for finding in report.findings
    ]
    return report
