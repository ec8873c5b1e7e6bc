"""A request as GenAI wants it: the prompt as token ids, and how tokens are drawn."""

from __future__ import annotations

import json
import random
from typing import Any

import msgspec

from dockyard.engines._openvino_grammar import structure
from dockyard.engines._openvino_text import Vocabulary
from dockyard.engines._tool_calls import THINK, Parser, names
from dockyard.errors import ContextOverflow, InvalidRequest, UnsupportedParameter
from dockyard.types import Json, Message, Request, Sampling

ACCEPTS = frozenset({
    "add_generation_prompt", "chat_template_kwargs", "continue_final_message", "grammar", "json_schema",
    "parallel_tool_calls", "reasoning_effort", "regex", "response_format", "tool_choice", "tools",
})  # fmt: skip
"""Fields of ``Request.extra`` that count here."""

TOKENIZE = ACCEPTS | {"add_special_tokens"}
"""The same where only token ids are asked for."""

DEFAULT_TEMPERATURE, DEFAULT_TOP_K, DEFAULT_TOP_P, DEFAULT_MIN_P = 0.8, 40, 0.95, 0.05
"""What a request gets that says nothing, where the model says nothing either: llama.cpp's choice, so that replicas of
one model on both engines draw alike."""


class Prompter:
    """Renders conversations and tokenises; safe to use from several threads."""

    def __init__(self, tokenizer: Any, template: str | None, context: int) -> None:
        self._tokenizer = tokenizer
        self._template = template or ""
        self._context = context
        self.template = template or str(tokenizer.chat_template or "")

    def tokens(self, request: Request, *, special: bool = True) -> list[int]:
        """The prompt's token ids; ``special`` puts what the model begins with before a text. Raises InvalidRequest."""
        prompt = request.prompt
        if request.messages is not None:
            ids = self.encoded(self.render(request))
        elif isinstance(prompt, str):
            ids = self.encoded(prompt, special=special)
        else:
            ids = list(prompt or ())
        if not ids:
            raise InvalidRequest("the prompt is empty", param="prompt")
        return ids

    def text(self, request: Request, vocabulary: Vocabulary) -> str:
        """The same as text, for models that make embeddings of it themselves."""
        if request.messages is not None:
            return self.render(request)
        return request.prompt if isinstance(request.prompt, str) else vocabulary.text(list(request.prompt or ()))

    def check(self, ids: list[int], vocabulary: int, *, more: int = 0) -> None:
        """Raises ContextOverflow, or InvalidRequest for what is no token; ``more`` are tokens of its images."""
        if len(ids) + more >= self._context:
            raise ContextOverflow(
                f"the prompt has {len(ids) + more} tokens; this model is loaded with a context of {self._context}",
                hint="shorten the prompt, or load the model with a larger context",
            )
        if wrong := next((token for token in ids if not 0 <= token < vocabulary), None):
            raise InvalidRequest(f"{wrong} is not a token of this model", param="prompt")

    def render(self, request: Request) -> str:
        """The text that the model sees of a conversation."""
        if not self.template:
            raise InvalidRequest(
                "this model has no chat template", param="messages", hint="use completions, or give it a template"
            )
        extra = request.extra
        tools = (extra.get("tools") or None) if extra.get("tool_choice") != "none" else None
        if tools and "tools" not in self.template:
            raise UnsupportedParameter(
                "this model's chat template has no place for tools", param="tools",
                hint="leave `tools` out, or use a model that was trained on them",
            )  # fmt: skip
        messages = [_plain(message) for message in request.messages or ()]
        goes_on = bool(extra.get("continue_final_message"))
        begin = bool(extra.get("add_generation_prompt", not goes_on))
        if goes_on and (begin or not messages or messages[-1]["role"] != "assistant"):
            raise InvalidRequest(
                "continue_final_message needs an assistant's message at the end, and no add_generation_prompt",
                param="continue_final_message",
            )
        context = dict(extra.get("chat_template_kwargs") or {})
        if "reasoning_effort" in extra:
            context.setdefault("reasoning_effort", extra["reasoning_effort"])
            context.setdefault("enable_thinking", extra["reasoning_effort"] not in ("none", "minimal"))
        try:
            text: str = self._tokenizer.apply_chat_template(messages, begin, self._template, tools, context or None)
        except (RuntimeError, TypeError) as error:
            raise InvalidRequest(f"the chat template does not take this: {error}", param="messages") from error
        if goes_on:
            last = str(messages[-1]["content"]).strip()
            at = text.rfind(last)
            if at < 0:
                raise InvalidRequest("the chat template changes the last message", param="continue_final_message")
            text = text[: at + len(last)]
        return text

    def joined(self, pieces: list[str]) -> list[int]:
        """The tokens of pieces between which no token spans. Raises InvalidRequest."""
        ids = [token for piece in pieces if piece for token in self.encoded(piece)]
        if not ids:
            raise InvalidRequest("the prompt is empty", param="prompt")
        return ids

    def encoded(self, text: str, *, special: bool = False) -> list[int]:
        found = self._tokenizer.encode(text, add_special_tokens=special).input_ids.data
        return [int(token) for token in found.reshape(-1)]


def parser(request: Request, prompt: str, template: str) -> Parser | None:
    """What takes the answer to a conversation apart; None where it is nothing but text."""
    tools = names(request.extra.get("tools")) if request.extra.get("tool_choice") != "none" else frozenset[str]()
    thinks = THINK in template
    if request.messages is None or not (tools or thinks):
        return None
    return Parser(tools, thinks=thinks, thinking=prompt.rstrip().endswith(THINK))


def configs(
    request: Request, base: Any, room: int, ends: set[int], template: str, guesses: tuple[int, int] = (0, 0)
) -> list[Any]:
    """A ``GenerationConfig`` for each choice; ``room`` is how many tokens the context has left, ``guesses``
    how many are guessed ahead, and after how many like ones in the prompt (0: by a model).

    Raises UnsupportedParameter and InvalidRequest naming the field.
    """
    import openvino_genai

    sampling = request.sampling
    _refuse(request)
    if sampling.max_tokens is not None and sampling.max_tokens < 1:
        raise InvalidRequest(f"max_tokens is {sampling.max_tokens}; at least 1", param="max_tokens")
    if sampling.n < 1:
        raise InvalidRequest(f"n is {sampling.n}; at least 1", param="n")
    shape = structure(request.extra, template)
    seed = random.getrandbits(31) if sampling.seed is None else sampling.seed & 0x7FFFFFFF
    made = []
    for index in range(sampling.n):
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = min(room, sampling.max_tokens or room)
        config.ignore_eos = sampling.ignore_eos
        config.apply_chat_template = False  # that is done, where there is one
        config.stop_token_ids = ends
        config.set_eos_token_id(min(ends)) if ends else None
        config.logprobs = 0 if sampling.logprobs is None else 1
        config.rng_seed = seed + index
        if guesses[0]:
            config.num_assistant_tokens, config.max_ngram_size = guesses
        if shape is not None:
            config.structured_output_config = shape
        _draw(config, sampling, base)
        try:
            config.validate()
        except RuntimeError as error:
            said = [line.strip() for line in str(error).splitlines() if line.strip()]
            raise InvalidRequest(f"OpenVINO does not take this: {said[-1]}", param="sampling") from error
        made.append(config)
    return made


def _draw(config: Any, sampling: Sampling, base: Any) -> None:
    own = base is not None and base.do_sample
    temperature = sampling.temperature
    if temperature is None:
        temperature = base.temperature if own else DEFAULT_TEMPERATURE if base is None else 0.0
    config.do_sample = temperature > 0
    if config.do_sample:
        config.temperature = temperature
        config.top_p = _first(sampling.top_p, base.top_p if own else DEFAULT_TOP_P)
        config.min_p = _first(sampling.min_p, base.min_p if own else DEFAULT_MIN_P)
        top_k = _first(sampling.top_k, base.top_k if own else DEFAULT_TOP_K)
        if top_k > 0:
            config.top_k = top_k
    config.presence_penalty = _first(sampling.presence_penalty, 0.0)
    config.frequency_penalty = _first(sampling.frequency_penalty, 0.0)
    config.repetition_penalty = _first(sampling.repetition_penalty, base.repetition_penalty if base else 1.0)


def _first(value: Any, otherwise: Any) -> Any:
    return otherwise if value is None else value


def refuse_unknown(request: Request, accepted: frozenset[str] = ACCEPTS) -> None:
    """Raises UnsupportedParameter naming what this engine does not take."""
    for name in request.extra:
        if name not in accepted:
            raise UnsupportedParameter(f"the openvino engine does not take {name!r}", param=name)


def _refuse(request: Request) -> None:
    refuse_unknown(request)
    sampling = request.sampling
    if sampling.logit_bias:
        raise UnsupportedParameter("OpenVINO GenAI has no logit_bias", param="logit_bias")
    if sampling.logprobs:
        raise UnsupportedParameter(
            "OpenVINO GenAI tells the log probability of the chosen token only", param="top_logprobs",
            hint="leave `top_logprobs` out, or ask the llamacpp engine",
        )  # fmt: skip
    if sampling.prompt_logprobs is not None:
        raise UnsupportedParameter("the openvino engine has no log probabilities of the prompt", param="echo")
    if request.suffix is not None:
        raise UnsupportedParameter("the openvino engine does not fill in the middle", param="suffix")


def _plain(message: Message) -> dict[str, Json]:
    """A message as templates expect it: text in one piece, arguments of calls as objects."""
    found: dict[str, Json] = msgspec.to_builtins(message)
    content = message.content
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, dict)]
        if any(part.get("type") not in ("text", "input_text") for part in parts):
            raise UnsupportedParameter("this model takes text only", param="messages")
        content = "".join(str(part.get("text", "")) for part in parts)
    found["content"] = content or ""
    if message.tool_calls:
        found["tool_calls"] = [_call(call) for call in message.tool_calls]
    return found


def _call(call: Json) -> Json:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = json.loads(function["arguments"] or "{}")
    except ValueError:
        return call
    return {**call, "function": {**function, "arguments": arguments}}
