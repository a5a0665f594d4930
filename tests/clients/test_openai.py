"""The ``openai`` package against the server: what it gives is what ``vintern chat`` says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import openai
import pytest

from conftest import KEY, receipt

if TYPE_CHECKING:
    from collections.abc import Callable

READ = "Đọc toàn bộ chữ trong ảnh."
TOTAL = "Tổng cộng là bao nhiêu?"


@pytest.fixture
def client(address: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=address, api_key=KEY, max_retries=0)


def asked(question: str) -> list[Any]:
    return [{"role": "user", "content": [receipt(), {"type": "text", "text": question}]}]


def test_plain(client: openai.OpenAI, chat: Callable[..., dict[str, Any]]) -> None:
    expected = chat(READ)
    answer = client.chat.completions.create(model="vintern-tiny", messages=asked(READ))
    assert answer.choices[0].message.content == expected["text"]
    assert answer.choices[0].finish_reason == expected["finish_reason"]
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == expected["usage"]["prompt_tokens"]
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_streaming_with_settings_of_the_engine(client: openai.OpenAI, chat: Callable[..., dict[str, Any]]) -> None:
    expected = chat(READ, "--num-beams", "3", "--repetition-penalty", "1.1", "--max-tiles", "6")
    stream = client.chat.completions.create(
        model="vintern-tiny",
        messages=asked(READ),
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"num_beams": 3, "repetition_penalty": 1.1, "max_tiles": 6},
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == expected["text"]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens == expected["usage"]["prompt_tokens"]


def test_a_conversation(client: openai.OpenAI) -> None:
    messages = asked(READ)
    first = client.chat.completions.create(model="vintern-tiny", messages=messages)
    messages += [{"role": "assistant", "content": first.choices[0].message.content}, {"role": "user", "content": TOTAL}]
    second = client.chat.completions.create(model="vintern-tiny", messages=messages)
    assert second.choices[0].message.content == "4.322.000"
    assert second.usage is not None
    assert second.usage.prompt_tokens_details is not None
    assert second.usage.prompt_tokens_details.cached_tokens


def test_the_list_of_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["vintern-tiny"]


def test_what_is_refused_is_the_clients_error(client: openai.OpenAI, address: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="vintern-tiny", messages=asked(READ), frequency_penalty=1)
    assert refused.value.param == "frequency_penalty"
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="another", messages=asked(READ))
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=address, api_key="none", max_retries=0).models.list()
