"""Run the conformance suites, and write their scorecard into README.md: ``python scorecard.py``."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
BEGIN, END = "<!-- scorecard -->\n", "<!-- end of scorecard -->\n"
COLUMNS = ("passed", "emulated", "refused", "failed")


def scorecard() -> dict:
    """Run the suites and return what they found."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scorecard.json"
        command = [sys.executable, "-m", "pytest", "-q", "tests/test_conformance.py", f"--scorecard-json={path}"]
        subprocess.run(command, cwd=HERE, check=True)  # noqa: S603
        (found,) = json.loads(path.read_text(encoding="utf-8"))
        return found


def table(found: dict) -> str:
    """Write it as two tables."""
    areas = found["areas"]
    total = {name: sum(score[name] for score in areas.values()) for name in COLUMNS}
    rows = [f"| area | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for area, score in {**areas, "**total**": total}.items():
        rows.append(f"| {area} | {' | '.join(str(score[name]) for name in COLUMNS)} |")
    rows += ["", "| capability | how |", "|---|---|"]
    rows += [f"| {name} | {how} |" for name, how in found["features"].items() if how != "native"]
    native = ", ".join(name for name, how in found["features"].items() if how == "native")
    return "\n".join([*rows, "", f"Native: {native}.", ""])


if __name__ == "__main__":
    readme = HERE / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    readme.write_text(f"{before}{BEGIN}{table(scorecard())}{END}{after}", encoding="utf-8")
