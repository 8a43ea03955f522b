"""Tells what pip-audit found, from its JSON: `python .ci/audited.py LIST FILE`.

Exit code 0: no known vulnerability. 1: some. 3: the list knew none of the packages, so that it was
not reached: "no vulnerabilities" would then be no answer.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

_NAMED = 5  # packages that were left out


def main(words: list[str]) -> int:
    """Print one line for each vulnerability, and how many packages were audited."""
    name, path = words
    lines, code = told(name, json.loads(Path(path).read_text(encoding="utf-8"))["dependencies"])
    for line in lines:
        print(f"audit: {line}")
    return code


def told(name: str, packages: list[dict[str, Any]]) -> tuple[list[str], int]:
    """The lines for people, and the exit code.

    Args:
        name: of the list of vulnerabilities.
        packages: `dependencies` of pip-audit's JSON.
    """
    left_out = [one["name"] for one in packages if "skip_reason" in one]
    audited = len(packages) - len(left_out)
    if not audited:
        return [], 3
    lines = [
        f"{one['name']} {one['version']}: {known['id']}, mended in "
        f"{', '.join(known['fix_versions']) or 'no version yet'}"
        for one in packages
        for known in one.get("vulns", ())
    ]
    count = len(lines)
    if left_out:
        more = ", ..." if len(left_out) > _NAMED else ""
        lines.append(f"{name} does not know {', '.join(left_out[:_NAMED])}{more}: not audited")
    lines.append(
        f"{audited} of {len(packages)} packages of constraints.txt audited by {name}, "
        f"{count or 'no'} known {'vulnerability' if count == 1 else 'vulnerabilities'}"
    )
    return lines, int(count > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
