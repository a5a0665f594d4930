from pathlib import Path

import pytest

from support import golden
from support.checkpoints import copy_checkpoint
from vintern_export.config import load_config
from vintern_export.errors import UnsupportedCheckpointError, UsageError
from vintern_export.prompt import TEMPLATES, Prompt, resolve_prompt

SCRIPT = """
import os
os.abort()  # would end the test if this file were run
register_conv_template(Conversation(name="Hermes-2", system_template="{system_message}", system_message="first"))
register_conv_template(Conversation(name='other', system_message='not this'))
Conversation(name="Hermes-2", system_message="not registered")
register_conv_template(
    Conversation(
        name='Hermes-2',
        system_message='Bạn là '
        'Vintern.',
    )
)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return copy_checkpoint(golden.checkpoint("ckpt_a"), tmp_path / "checkpoint")


def resolve(folder: Path, template: str | None = None, system: str | None = None) -> Prompt:
    return resolve_prompt(folder, load_config(folder).model, template, system)


def with_message(folder: Path, value: str) -> None:
    path = folder / "config.json"
    path.write_text(path.read_text().replace("{", f'{{"system_message": {value},', 1))


def test_default_of_the_template(folder: Path) -> None:
    assert resolve(folder) == Prompt("Hermes-2", TEMPLATES["Hermes-2"])
    assert resolve(folder, "internvl2_5") == Prompt("internvl2_5", TEMPLATES["internvl2_5"])


def test_conversation_script_is_read_but_not_run(folder: Path) -> None:
    (folder / "conversation.py").write_text(SCRIPT)
    assert resolve(folder).system_message == "Bạn là Vintern."
    assert resolve(folder, "internvl2_5").system_message == TEMPLATES["internvl2_5"]


def test_configuration_comes_before_the_script(folder: Path) -> None:
    (folder / "conversation.py").write_text(SCRIPT)
    with_message(folder, '"from config"')
    assert resolve(folder).system_message == "from config"
    assert resolve(folder, system="").system_message == ""


def test_null_in_the_configuration_is_the_text_none(folder: Path) -> None:
    with_message(folder, "null")
    assert resolve(folder).system_message == "None"


def test_null_gives_way_to_the_script(folder: Path) -> None:
    (folder / "conversation.py").write_text(SCRIPT)
    with_message(folder, "null")
    assert resolve(folder).system_message == "Bạn là Vintern."
    assert resolve(folder, "internvl2_5").system_message == TEMPLATES["internvl2_5"]


def test_argument_comes_first(folder: Path) -> None:
    (folder / "conversation.py").write_text(SCRIPT)
    with_message(folder, '"from config"')
    assert resolve(folder, system="mine") == Prompt("Hermes-2", "mine")


def test_a_template_without_a_message_has_an_empty_one(folder: Path) -> None:
    (folder / "conversation.py").write_text("register_conv_template(Conversation(name='Hermes-2'))")
    assert resolve(folder).system_message == ""


def test_computed_messages_and_broken_scripts_are_refused(folder: Path) -> None:
    (folder / "conversation.py").write_text("register_conv_template(Conversation(name='Hermes-2', system_message=f()))")
    with pytest.raises(UnsupportedCheckpointError, match=r"conversation\.py line 1") as caught:
        resolve(folder)
    assert caught.value.hint == "Give the message with --system."
    (folder / "conversation.py").write_text("register_conv_template(")
    with pytest.raises(UnsupportedCheckpointError, match="does not parse"):
        resolve(folder)
    assert resolve(folder, system="mine").system_message == "mine"


def test_unknown_templates_are_refused(tmp_path: Path) -> None:
    folder = copy_checkpoint(
        golden.checkpoint("ckpt_a"), tmp_path / "other", lambda config: config.update(template="phi3-chat")
    )
    with pytest.raises(UnsupportedCheckpointError, match="found 'phi3-chat'; supported: Hermes-2, internlm2-chat"):
        resolve(folder)
    with pytest.raises(UsageError, match="found 'nonsense'"):
        resolve(folder, "nonsense")
    assert resolve(folder, "Hermes-2").template == "Hermes-2"
