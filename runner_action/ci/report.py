"""What is reported of a launch, the same in every CI: outputs and the summary. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from runner_action.model import Launched, Report
from runner_action.plain import code, dumps, markdown
from runner_action.request import LaunchRequest


def outputs(launched: Sequence[Launched]) -> dict[str, str]:
    """Outputs as in the schema: of the first runner, and of all of them as JSON."""
    each = [_output(one) for one in launched]
    return {**(each[0] if each else {}), "runners": dumps(each)}


def _output(one: Launched) -> dict[str, str]:
    instance = one.instance
    found = {
        "instance-id": instance.id if instance else "",
        "instance-ip": instance.address if instance else "",
        "instanceIp": instance.address if instance else "",
        "region": instance.region if instance else "",
        "zone": instance.zone if instance else "",
        "instance-type": instance.instance_type if instance else "",
        "spot": str(instance.spot).lower() if instance else "",
    }
    return {
        "runner-name": one.runner_name,
        "label": one.label,
        "labels": ",".join(one.labels),
        **found,
        "reused": str(one.reused).lower(),
        "launch-seconds": f"{one.launch_seconds:.2f}",
    }


def summary(report: Report, request: LaunchRequest) -> str:
    """The job summary, in Markdown: what came online and where the seconds went."""
    if not report.launched:
        return plan_text(report)
    count = len(report.launched)
    heading = "### Runner online" if count == 1 else f"### {count} runners online"
    parts = [heading, _table(report.launched)]
    if report.stages:
        stages = ", ".join(f"{name} {seconds:.1f}" for name, seconds in report.stages.items())
        parts.append(f"Seconds until: {stages}")
    if any(not line.endswith(": yes") for line in report.tried):
        parts.append("Asked for:\n" + "\n".join(f"- {markdown(line)}" for line in report.tried))
    parts.append(_ends(request))
    return "\n\n".join(parts) + "\n"


def _table(launched: Sequence[Launched]) -> str:
    lines = [
        "| runner | labels | instance | type | zone | address | online after |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for one in launched:
        told = _output(one)
        market = " (spot)" if told["spot"] == "true" else ""
        cells = (
            code(one.runner_name),
            markdown(told["labels"]),
            markdown(told["instance-id"]) or ("reused" if one.reused else "this machine"),
            markdown(told["instance-type"] + market),
            markdown(told["zone"]),
            markdown(told["instance-ip"]),
            f"{one.launch_seconds:.0f} s",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _ends(request: LaunchRequest) -> str:
    """When the machine ends itself, as a sentence."""
    if request.single:
        when = "after one job"
    elif request.idle_timeout is None:
        when = "never, as `idle-timeout` says"
    else:
        when = f"after {request.idle_timeout} s without a job"
    if request.max_lifetime:
        when += f", and after {request.max_lifetime // 3600} h in any case"
    return f"{'The machine ends itself' if request.cloud else 'The runner leaves'} {when}."


def plan_text(report: Report) -> str:
    """What a dry run found, in Markdown."""
    if not report.plan:
        return ""
    rungs = "\n".join(
        f"{number}. {markdown(str(placement))}" for number, placement in enumerate(report.ladder, 1)
    )
    plan = report.plan
    found = f"Image {code(plan.image)}, disk {plan.disk_gb} GB, architecture {plan.architecture}."
    return (
        f"### Plan: nothing was created\n\n{found} Would be asked for, in this order:\n\n{rungs}\n"
    )
