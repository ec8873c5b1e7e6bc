"""What a prompt file says and becomes; what is wrong with one is told with its place."""

from __future__ import annotations

import pytest

from dockyard.errors import InvalidRequest
from dockyard.prompt import answers
from dockyard.prompt.model import Prompt, read
from dockyard.prompt.render import composed, request_of
from dockyard.prompt.writing import as_yaml
from dockyard.types import Message, Request, Sampling

SHOP = """
persona: You are {{ name }} of the shop.
task: Answer the customer.
constraints: [Be short., "Speak {{ language }}."]
format: Plain text.
variables:
  name: {default: Kim}
  language: {choices: [English, French], default: English}
  stars: {type: integer, default: 3}
template: "Q: {{ input }}{% if stars > 3 %} (important){% endif %}"
examples:
  - {input: Open?, output: Until six.}
parameters: {temperature: 0}
"""


def user(text: str) -> tuple[Message, ...]:
    return (Message(role="user", content=text),)


def test_a_prompt_becomes_messages() -> None:
    prompt = read(SHOP)
    messages = composed(
        prompt,
        {"language": "French", "stars": "5"},
        (
            Message(role="system", content="Today is Monday."),
            *user("first"),
            Message(role="assistant", content="yes"),
            *user("{{ name }}?"),
        ),
        prompt.examples,
    )
    assert [(one.role, one.content) for one in messages] == [
        (
            "system",
            "You are Kim of the shop.\n\nAnswer the customer.\n\n- Be short.\n- Speak French.\n\nFormat: Plain text."
            "\n\nToday is Monday.",
        ),
        ("user", "Q: Open? (important)"),
        ("assistant", "Until six."),
        ("user", "first"),
        ("assistant", "yes"),
        ("user", "Q: {{ name }}? (important)"),
    ]
    assert read(as_yaml(prompt)) == prompt


@pytest.mark.parametrize(
    ("text", "param", "told"),
    [
        ("tempalte: x", "tempalte", "did you mean 'template'"),
        ("variables: {a: {tpye: string}}", "variables.a.tpye", "did you mean 'type'"),
        ("examples: [{input: a, ouput: b}]", "examples[0].ouput", "did you mean 'output'"),
        ("template: '{{ nmae }}'\nvariables: {name: {}}", "template", "did you mean 'name'"),
        ("template: '{{ input'", "prompt: template", "line 1"),
        ("system: a\ntask: b", None, "not both"),
        ("select: {count: 2, by: similarity}", "select", "goes with"),
        ("variables: {n: {type: integer, default: x}}", "variables.n", "of type integer"),
        ("tests: [{input: a, scorers: []}]", "tests[0].scorers", "length"),
        ("[1]", None, "expected keys"),
        ("a: [", None, "YAML"),
        ("samples: 0", "samples", ">= 1"),
        ("schema: {}", "schema", "empty"),
    ],
)
def test_what_is_wrong_with_a_file_is_told(text: str, param: str | None, told: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        read(text)
    assert raised.value.param == param
    assert told in f"{raised.value.message} {raised.value.hint}"


@pytest.mark.parametrize(
    ("given", "param", "told"),
    [
        ({"nam": "x"}, "variables.nam", "did you mean 'name'"),
        ({"language": "Latin"}, "variables.language", "one of English, French"),
        ({"stars": "many"}, "variables.stars", "of type integer"),
        ({"stars": True}, "variables.stars", "of type integer"),
        ({"name": "x" * 100_001}, "variables.name", "the most"),
    ],
)
def test_variables_have_types(given: dict[str, object], param: str, told: str) -> None:
    prompt = read(SHOP)
    with pytest.raises(InvalidRequest) as raised:
        composed(prompt, given, user("x"), ())
    assert raised.value.param == param
    assert told in f"{raised.value.message} {raised.value.hint}"


def test_a_variable_without_default_must_be_given() -> None:
    with pytest.raises(InvalidRequest, match="'city' is missing"):
        composed(read("variables: {city: {}}\ntemplate: '{{ city }}'"), {}, user("x"), ())


@pytest.mark.parametrize(
    "template",
    [
        "{{ input.__class__.__mro__ }}",
        "{{ input * 1000000000 }}",
        "{{ 'x' * 1000000000 }}",
        "{{ 10 ** 10 ** 10 }}",
        "{{ '%1000000000d' % 1 }}",
        "{% for a in range(99999) %}{% for b in range(99999) %}xxxxxxxxxxxxxxxxxxxx{% endfor %}{% endfor %}",
        "{{ range(100000000) }}",
        "{{ 1 / 0 }}",
    ],
)
def test_templates_run_in_a_sandbox(template: str) -> None:
    with pytest.raises(InvalidRequest, match="template"):
        composed(Prompt(template=template), {}, user("x"), ())


def test_images_stay_where_the_text_is_templated() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:,"}}
    message = Message(role="user", content=[{"type": "text", "text": "What?"}, picture])
    (made,) = composed(Prompt(template="Q: {{ input }}"), {}, (message,), ())
    assert made.content == [{"type": "text", "text": "Q: What?"}, picture]


def test_a_schema_and_reasoning_become_one_schema() -> None:
    prompt = read(
        "reasoning: steps\nschema: {type: object, $defs: {n: {type: integer}}, properties: {a: {$ref: '#/$defs/n'}}}\n"
        "examples: [{input: q, output: '{\"a\": 1}', reasoning: one}]"
    )
    made = request_of(prompt, Request(id="r", messages=user("x")), {}, prompt.examples)
    schema = made.extra["response_format"]["json_schema"]["schema"]
    assert list(schema["properties"]) == ["reasoning", "answer"]
    assert schema["$defs"] == {"n": {"type": "integer"}}
    assert made.messages is not None
    assert made.messages[1].content == '{"reasoning":"one","answer":{"a":1}}'
    with pytest.raises(InvalidRequest, match="looks like"):
        request_of(prompt, Request(id="r", messages=user("x"), extra={"response_format": {}}), {}, ())


def test_several_samples_are_drawn_warm() -> None:
    prompt = Prompt(samples=5)
    assert request_of(prompt, Request(id="r"), {}, ()).sampling == Sampling(n=5, temperature=0.7)
    with pytest.raises(InvalidRequest, match="several samples"):
        request_of(prompt, Request(id="r", sampling=Sampling(n=2)), {}, ())


THOUGHT = "Two and two.\nThe Answer: is near.\n**Answer:** 4\nand more"


def test_reasoning_is_kept_out_of_the_answer_however_it_is_cut() -> None:
    assert answers.split(THOUGHT) == ("Two and two.\nThe Answer: is near.", "4\nand more")
    for size in (1, 2, 3, 7, 50):
        splitter = answers.Splitter()
        pairs = [splitter.add(THOUGHT[at : at + size]) for at in range(0, len(THOUGHT), size)] + [splitter.end()]
        told = ("".join(one for one, _ in pairs).strip(), "".join(two for _, two in pairs).strip())
        # Marks around the word may go either way when they come in pieces.
        assert told[0].startswith("Two and two.\nThe Answer: is near.")
        assert told[1].lstrip("* ") == "4\nand more"


def test_an_answer_without_a_mark_is_the_last_line() -> None:
    assert answers.split("first\nsecond\n7\n") == ("first\nsecond\n7", "7")
    assert answers.split("Answer: yes") == ("", "yes")
    assert answers.split("") == ("", "")


def test_the_majority_counts_what_answers_say() -> None:
    assert answers.majority(["Paris", "Rome", "paris.", "Rome", " PARIS "]) == 0
    assert answers.majority(['{"a": 1, "b": 2}', "x", '{"b":2,"a":1}']) == 0
    assert answers.majority(["", "", "x"]) == 2
    assert answers.majority(["", ""]) == 0
