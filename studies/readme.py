"""Puts what the studies' reports say into their READMEs, between markers, and all claims into studies/README.md.

    python studies/readme.py --minutes STUDY    # in the repository's root, after that study's `dvc repro`
    python studies/readme.py [STUDY ...]        # those, or all, and the table of all claims
    python studies/readme.py --check            # fails where a README is not what the reports say

A README holds, on lines of their own, `<!-- report: HEADING -->` and `<!-- end -->`: between them goes that section of
the study's `data/report/report.md` (`table` is the first table). `<!-- minutes -->` is a table of `minutes.json`, which
`--minutes STUDY` makes of the times that the study's last `dvc repro` left in `data/timings`.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path

STUDIES = Path(__file__).parent
# Between the markers no other opens: an end that was forgotten must not swallow what follows.
BLOCK = re.compile(r"(<!-- (report: .+?|minutes|claims) -->\n)(?:(?!<!-- ).)*?(<!-- end -->)", re.DOTALL)


def filled(readme: Path) -> str:
    """The README's text with every block as the reports have it."""

    def block(match: re.Match[str]) -> str:
        return f"{match[1]}\n{_block(match[2], readme.parent).strip()}\n\n{match[3]}"

    text = readme.read_text()
    if len(BLOCK.findall(text)) != len(re.findall(r"^<!-- (?!end)", text, re.MULTILINE)):
        sys.exit(f"error: {readme}: expected `<!-- end -->` after each block, found one without")
    return BLOCK.sub(block, text)


def _block(kind: str, folder: Path) -> str:
    if kind == "minutes":
        return minutes_table(json.loads(_made(folder / "minutes.json")))
    if kind == "claims":
        return claims_table()
    return section(_made(folder / "data/report/report.md"), kind.removeprefix("report: "))


def _made(path: Path) -> str:
    """A file that a run leaves behind."""
    if not path.exists():
        sys.exit(f"error: {path}: expected what `dvc repro` leaves there, found nothing; run the study, then --minutes")
    return path.read_text()


def section(report: str, heading: str) -> str:
    """One section of a report without its heading; `table`: the lines of the first table."""
    if heading == "table":
        return "\n".join(line for line in report.partition("\n- ")[0].splitlines() if line.startswith("|"))
    parts = re.split(r"^## (.+)$", report, flags=re.MULTILINE)
    found = dict(zip(parts[1::2], parts[2::2], strict=True))
    if heading not in found:
        sys.exit(f"error: report.md: expected a section {heading!r}, found {', '.join(found)}")
    return found[heading]


def minutes_of(study: Path) -> dict[str, float]:
    """By stage, minutes of its last run."""
    files = sorted((study / "data/timings").glob("*/timings.json"))
    timed = [json.loads(file.read_text()) for file in files]
    return {each["stage"]: round(each["seconds"] / 60, 2) for each in timed}


def minutes_table(minutes: Mapping[str, float]) -> str:
    """Minutes by kind of stage."""
    kinds = {"data": "prepare", "teachers": "train-teacher", "dumps": "dump", "students": "train-student"}
    sums = {name: sum(m for stage, m in minutes.items() if stage.startswith(kind)) for name, kind in kinds.items()}
    sums["report"] = minutes.get("report", 0.0)
    names = (*sums, "together")
    cells = (f"{value:.1f}" for value in (*sums.values(), sum(sums.values())))
    return "\n".join(("| " + " | ".join(names) + " |", "|---:" * len(names) + "|", "| " + " | ".join(cells) + " |"))


def claims_table() -> str:
    """One row a claim, all studies."""
    rows = ["| study | claim | verdict | difference | 95 % interval | asked |", "|---|---|---|---:|---:|---:|"]
    for study in sorted(path.parent for path in STUDIES.glob("*/params.yaml")):
        report = _made(study / "data/report/report.md")
        if "\n## Claims\n" not in report:
            continue
        for line in [line for line in section(report, "Claims").splitlines() if line.startswith("|")][2:]:
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))]
            says, _measured, difference, interval, asked, verdict = cells
            name = f"[{study.name}]({study.name}/README.md)"
            rows.append(f"| {name} | {says} | **{verdict}** | {difference} | {interval} | {asked} |")
    return "\n".join(rows)


def main() -> None:
    """Fill in, or check, READMEs of the studies."""
    parser = argparse.ArgumentParser(description="Put reports into the studies' READMEs.")
    parser.add_argument("studies", nargs="*", help="whose READMEs; all by default")
    parser.add_argument("--check", action="store_true", help="change nothing; fail where a README is stale")
    parser.add_argument("--minutes", metavar="STUDY", help="first note how long that study's stages took")
    options = parser.parse_args()
    if options.minutes:
        study = STUDIES / options.minutes
        minutes = minutes_of(study)
        if not minutes:
            sys.exit(f"error: {study}: expected a study that has run here, found no times in data/timings")
        (study / "minutes.json").write_text(json.dumps(minutes, indent=2) + "\n")
    named = [*options.studies, *([options.minutes] if options.minutes else [])]
    readmes = [STUDIES / name / "README.md" for name in named] or sorted(STUDIES.glob("*/README.md"))
    texts = {readme: filled(readme) for readme in (*readmes, STUDIES / "README.md")}
    stale = [readme for readme, text in texts.items() if readme.read_text() != text]
    if options.check and stale:
        names = ", ".join(str(readme.relative_to(STUDIES.parent)) for readme in stale)
        sys.exit(f"error: {names}: expected what the reports say, found other text; run `python studies/readme.py`")
    for readme in stale:
        readme.write_text(texts[readme])


if __name__ == "__main__":
    main()
