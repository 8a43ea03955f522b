"""The net that a run was begun with is kept, whatever a later budget would choose.

How wide a net is depends on the budget and on the machine. A run that is given more time, or goes
on elsewhere, has weights of one width already.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from noisewise.train.plan import TeacherPlan
from noisewise.train.runfile import read_either


def with_kept_net(plan: TeacherPlan, folder: Path) -> TeacherPlan:
    """The plan with the net of the run in this folder; as it is where there is no run yet.

    Args:
        plan: derived anew; the run is known to have the same settings and pictures, but for budget
            and machine.
        folder: of the run, begun or not.
    """
    if not (folder / "run.json").exists():
        return plan
    noted = read_either(folder)[0].get("derived", {}).get("net")
    if not noted or noted["value"] == plan.net:
        return plan
    reasons = {**plan.reasons, "net": noted["reason"]}
    return replace(plan, net=noted["value"], reasons=reasons)
