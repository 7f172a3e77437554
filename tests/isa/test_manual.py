"""The manual is generated, complete and up to date."""

from pathlib import Path

import pytest

from tapeout.isa import Function, assemble, encode
from tapeout.isa.fields import REGISTRY
from tapeout.isa.manual import example, render
from tapeout.isa.program import show

MANUAL = Path(__file__).parents[2] / "docs" / "isa.md"


def test_manual_in_docs_is_up_to_date(request):
    text = render()
    if request.config.getoption("--update-golden"):
        MANUAL.write_text(text, "utf-8")
    assert text == MANUAL.read_text("utf-8"), "write it again with `tapeout isa --output docs/isa.md`"


def test_every_instruction_field_and_function_is_there():
    text = render()
    for kind in REGISTRY.values():
        page = text.split(f"#### {kind.mnemonic}\n")[1].split("\n#")[0]
        assert kind.meaning in page
        for field in kind.fields:
            assert f"`{field.name}`" in page
    for function in Function:
        assert f"| `{function.label}` | {function.code} |" in text


@pytest.mark.parametrize("kind", REGISTRY.values(), ids=lambda kind: kind.mnemonic)
def test_examples_can_be_assembled(kind):
    item = example(kind)
    (again,) = assemble(f"L12:\n{show(item)}")
    assert encode([again])
    if item.target_index is None:
        assert again == item
