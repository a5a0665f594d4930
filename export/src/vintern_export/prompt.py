"""Chat template and system message of a checkpoint, without running any of its code."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vintern_export.config_types import Layout, ModelConfig
from vintern_export.errors import UnsupportedCheckpointError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

SENSETIME_MESSAGE = (
    "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, 是一个有用无害的人工智能助手。"
)
INTERNVL_2_5_MESSAGE = (
    "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
)
TEMPLATES = {
    "Hermes-2": SENSETIME_MESSAGE,
    "internlm2-chat": SENSETIME_MESSAGE,
    "internvl2_5": INTERNVL_2_5_MESSAGE,
}
"""Supported templates and their default system messages in the InternVL repository."""
TRANSFORMERS_TEMPLATE = "internvl2_5"
"""The transformers layout has no template key; its models are of the 2.5 and 3 generations."""
NULL_MESSAGE = "None"
"""What the reference prints for ``"system_message": null``."""


@dataclass(frozen=True)
class Prompt:
    """Template name and system message of a package."""

    template: str
    system_message: str


def resolve_prompt(folder: Path, config: ModelConfig, template: str | None, system: str | None) -> Prompt:
    """Chooses the template and the system message.

    Template: the argument, else ``config.json``. System message, first that exists: the argument, ``system_message`` of
    ``config.json``, the named template's in ``conversation.py``, the template's default. A ``system_message`` that is
    null gives way to the script: a folder with a script has its own class, which does not read the key. Without
    one it becomes the text ``None``, as in the class that does read it.

    Raises:
        UsageError: the argument names an unknown template.
        UnsupportedCheckpointError: the checkpoint names none, or an unknown one.
    """
    known = ", ".join(TEMPLATES)
    if template is not None and template not in TEMPLATES:
        raise UsageError(f"--template: found {template!r}; supported: {known}")
    name = template or config.template
    if name is None and config.layout is Layout.TRANSFORMERS:
        name = TRANSFORMERS_TEMPLATE
    if name not in TEMPLATES:
        found = "nothing" if name is None else repr(name)
        raise UnsupportedCheckpointError("config.json template", found, known, "Choose one with --template.")
    return Prompt(name, system if system is not None else checkpoint_message(folder, config, name))


def checkpoint_message(folder: Path, config: ModelConfig, template: str) -> str:
    """The system message the checkpoint itself would use."""
    if isinstance(config.system_message, str):
        return config.system_message
    script = folder / "conversation.py"
    if script.is_file():
        message = conversation_message(script, template)
        return TEMPLATES[template] if message is None else message
    return NULL_MESSAGE if config.system_message is None else TEMPLATES[template]


def prompt_warnings(config: ModelConfig, prompt: Prompt) -> list[str]:
    """What the user should know about the prompt."""
    if config.system_message is not None or prompt.system_message != NULL_MESSAGE:
        return []
    line = f"config.json system_message is null, which the reference prints as the text {NULL_MESSAGE!r}; "
    return [f"{line}another can be given with --system"]


def conversation_message(script: Path, template: str) -> str | None:
    """``system_message`` of a ``register_conv_template(Conversation(name=template, ...))`` call, or None.

    The file is parsed, never executed; the last registration of a name wins, as it does when it runs.

    Raises:
        UnsupportedCheckpointError: the file does not parse, or the message is not a string literal.
    """
    try:
        tree = ast.parse(script.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError) as error:
        raise UnsupportedCheckpointError(
            script.name, f"text that does not parse ({error})", "Python source", "Give the message with --system."
        ) from error
    message: str | None = None
    for call in registrations(tree):
        keywords = {word.arg: word.value for word in call.keywords if word.arg}
        if literal(keywords.get("name")) != template:
            continue
        if "system_message" not in keywords:
            message = ""
            continue
        value = literal(keywords["system_message"])
        if not isinstance(value, str):
            raise UnsupportedCheckpointError(
                f"conversation.py line {call.lineno}", "a computed system_message", "a string literal",
                "Give the message with --system.",
            )  # fmt: skip
        message = value
    return message


def registrations(tree: ast.AST) -> list[ast.Call]:
    """The ``Conversation(...)`` calls that are arguments of ``register_conv_template``, in the order of the file."""
    found = []
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and called_name(call) == "register_conv_template":
            arguments = [*call.args, *(word.value for word in call.keywords)]
            found += [a for a in arguments if isinstance(a, ast.Call) and called_name(a) == "Conversation"]
    return sorted(found, key=lambda call: call.lineno)


def called_name(call: ast.Call) -> str | None:
    """The plain or last name of what a call calls."""
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else None


def literal(node: ast.expr | None) -> object:
    """The value of a literal expression, or None."""
    if node is None:
        return None
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None
