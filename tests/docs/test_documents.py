"""The code in the documents runs and prints what they say; generated pages are fresh; links exist."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [*sorted(ROOT.glob("docs/**/*.md")), *sorted(ROOT.glob("*.md"))]
WITH_CODE = [document for document in DOCUMENTS if "```python" in document.read_text("utf-8")]


def named(document: Path) -> str:
    return str(document.relative_to(ROOT))


@pytest.mark.parametrize("document", WITH_CODE, ids=named)
def test_code_runs(document, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "TAPEOUT_CHIP"}
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("run_document.py")), str(document)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_documents_with_code_were_found():
    assert {"README.md", "docs/tutorial.md"} <= {named(document) for document in WITH_CODE}


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_links_lead_somewhere(document):
    prose = re.sub(r"^```.*?^```$", "", document.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    prose = re.sub(r"`[^`\n]+`", "", prose)
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", prose):
        assert (document.parent / target).exists(), f"{named(document)} links to {target}"


def test_isa_manual_is_up_to_date():
    from tapeout.isa import manual

    written = (ROOT / "docs" / "isa.md").read_text("utf-8")
    assert written == manual.render(), "docs/isa.md is out of date: run `make docs`"


def test_calibration_page_is_up_to_date():
    from tapeout.silicon import calibration

    written = (ROOT / "docs" / "calibration.md").read_text("utf-8")
    assert written == calibration.render(), "docs/calibration.md is out of date: run `make docs`"


def test_page_of_commands_is_up_to_date():
    from tapeout.cli import app, manual

    written = (ROOT / "docs" / "reference" / "commands.md").read_text("utf-8")
    assert written == manual.render(app), "docs/reference/commands.md is out of date: run `make docs`"


def test_every_page_is_linked_from_another():
    linked = {
        (document.parent / target).resolve()
        for document in DOCUMENTS
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text("utf-8"))
    }
    lonely = [named(page) for page in ROOT.glob("docs/**/*.md") if page.resolve() not in linked]
    assert not lonely, f"no page links to {', '.join(sorted(lonely))}"
