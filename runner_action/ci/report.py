"""The report of a launch, the same in every CI: outputs and the summary. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from runner_action.forges import traits_of
from runner_action.model import Launched, Report
from runner_action.plain import code, dumps, markdown
from runner_action.request import LaunchRequest


def outputs(launched: Sequence[Launched]) -> dict[str, str]:
    """The outputs of the schema: those of the first runner, and all runners as JSON."""
    runners = [_outputs_of(runner) for runner in launched]
    return {**(runners[0] if runners else {}), "runners": dumps(runners)}


def _outputs_of(launched: Launched) -> dict[str, str]:
    instance = launched.instance
    of_instance = {
        "instance-id": instance.id if instance else "",
        "instance-ip": instance.address if instance else "",
        "instanceIp": instance.address if instance else "",
        "region": instance.region if instance else "",
        "zone": instance.zone if instance else "",
        "instance-type": instance.instance_type if instance else "",
        "spot": str(instance.spot).lower() if instance else "",
    }
    return {
        "runner-name": launched.runner_name,
        "label": launched.label,
        "labels": ",".join(launched.labels),
        **of_instance,
        "reused": str(launched.reused).lower(),
        "launch-seconds": f"{launched.launch_seconds:.2f}",
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
        installing = f" (of which installing packages {report.installing:.1f})"
        parts.append(f"Seconds until: {stages}{installing if report.installing else ''}")
    if report.memory:
        parts.append(markdown(report.memory))
    if any(not line.endswith(": yes") for line in report.tried):
        parts.append("Tried:\n" + "\n".join(f"- {markdown(line)}" for line in report.tried))
    parts.append(_end_of(request))
    return "\n\n".join(parts) + "\n"


def _table(launched: Sequence[Launched]) -> str:
    lines = [
        "| runner | labels | instance | type | zone | address | online after |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for runner in launched:
        values = _outputs_of(runner)
        market = " (spot)" if values["spot"] == "true" else ""
        cells = (
            code(runner.runner_name),
            markdown(values["labels"]),
            markdown(values["instance-id"]) or ("reused" if runner.reused else "this machine"),
            markdown(values["instance-type"] + market),
            markdown(values["zone"]),
            markdown(values["instance-ip"]),
            f"{runner.launch_seconds:.0f} s",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _end_of(request: LaunchRequest) -> str:
    """When the machine shuts down, or the runner on this machine leaves, as a sentence."""
    if request.single:
        when = "after one job"
    elif request.idle_timeout is None:
        when = "never, as `idle-timeout` says"
    else:
        when = f"after {request.idle_timeout} s without a job"
    if request.max_lifetime:
        when += f", and after {request.max_lifetime // 3600} h in any case"
    if not request.cloud:
        return f"The runner leaves {when}."
    advice = traits_of(request.forge).rerun_advice
    return f"The machine shuts down {when}." + (advice and f" After that, {advice}.")


def plan_text(report: Report) -> str:
    """What a launch would create, in Markdown; empty without a plan."""
    if not report.plan:
        return ""
    ladder = "\n".join(
        f"{number}. {markdown(str(placement))}" for number, placement in enumerate(report.ladder, 1)
    )
    plan = report.plan
    machine = f"Image {code(plan.image)}, disk {plan.disk_gb} GB, architecture {plan.architecture}"
    memory = f"{markdown(report.memory)}\n\n" if report.memory else ""
    return (
        "### Plan: nothing was created\n\n"
        f"{memory}{machine}. A launch would try, in this order:\n\n{ladder}\n"
    )
