"""The stack file: what it says, and what is wrong with one is told with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from dockyard import stack as stacks
from dockyard.cli import call
from dockyard.errors import InvalidRequest, NotFound
from dockyard.settings import Settings
from dockyard.types import LoadOptions, Sampling

WHOLE = """
name: desk
models:
  small: smollm2
  big: {source: "hf.co/Org/Repo", adapter: polite, context: 4096, preload: true}
prompts:
  support: prompts/support.yaml
knowledge:
  handbook: {sources: [docs/]}
routes:
  helpdesk:
    backends:
      - {model: small, prompt: "support:v1", weight: 3}
      - {model: big, prompt: "support:v2"}
    knowledge: handbook
    judge: "hf.co/Org/Judge"
    tools: desk
    guards: {deny_patterns: ["password"]}
    parameters: {temperature: 0, stop: [END]}
  plain: {model: small}
"""


def test_a_whole_file_is_read() -> None:
    stack = stacks.read(WHOLE.encode())
    assert stack.aliases() == {
        "small": "smollm2",
        "big": "hf.co/Org/Repo+polite",
        "helpdesk": "small",
        "plain": "small",
    }
    assert stack.sources() == ["smollm2", "hf.co/Org/Repo", "hf.co/Org/Judge"]
    assert stack.options() == {"big": LoadOptions(context=4096)}
    route = stack.routes["helpdesk"]
    assert route.indexes() == ("handbook",)
    assert route.parameters.under(Sampling(stop=("x",))) == Sampling(temperature=0, stop=("x",))
    assert route.parameters.under(Sampling(temperature=1.0)).temperature == 1.0


def test_shares_follow_the_weights_and_a_request_keeps_its_backend() -> None:
    route = stacks.read(WHOLE.encode()).routes["helpdesk"]
    chosen = [route.choose(f"request {number}").model for number in range(2000)]
    assert 0.70 < chosen.count("small") / 2000 < 0.80
    assert chosen == [route.choose(f"request {number}").model for number in range(2000)]


@pytest.mark.parametrize(
    ("text", "param", "told"),
    [
        ("rotes: {}", "rotes", "did you mean 'routes'"),
        ("routes: {a: {modell: x}}", "routes.a.modell", "did you mean 'model'"),
        ("routes: {a: {backends: [{model: x, wieght: 2}]}}", "routes.a.backends[0].wieght", "did you mean 'weight'"),
        ("routes: {a: {model: x, parameters: {temprature: 1}}}", "routes.a.parameters.temprature", "temperature"),
        ("routes: {a: {model: x, parameters: {temperature: 3}}}", "routes.a.parameters.temperature", "<= 2"),
        ("routes: {a: {}}", "routes.a", "either `model` or `backends`"),
        ("routes: {a: {backends: [{model: x, weight: 0}]}}", "routes.a", "weights are 0"),
        ("routes: {a: {model: a}}", "routes.a.model", "names itself"),
        ("routes: {a: {model: b}, b: {model: x}}", "routes.a.model", "is a route"),
        ("models: {a: x}\nroutes: {a: {model: x}}", "routes.a", "called so too"),
        ("knowledge: {docs: {}}\nroutes: {a: {model: x, knowledge: doc}}", "routes.a.knowledge", "did you mean 'docs'"),
        ("routes: {a: {model: x, judge: y}}", "routes.a", "a `judge` is for a route with `knowledge`"),
        ("knowledge: {d: {}}\nroutes: {a: {model: x, knowledge: d, judge: a}}", "routes.a.judge", "names itself"),
        ("models: {a: {context: 5}}", "models.a", "source"),
        ("models: {a: 5}", "models[...]", "expected"),
        ("routes: [1]", "routes", "expected"),
        ("- 1", None, "expected sections"),
        ("a: [", None, "YAML"),
        ("folder: x", "folder", "no such key"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: str, param: str | None, told: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        stacks.read(text.encode(), "file.yaml")
    assert raised.value.param == param
    assert told in f"{raised.value.message} {raised.value.hint}"
    assert raised.value.message.startswith("file.yaml")


def test_a_folder_means_its_file_and_a_missing_one_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"dockyard\.yaml"):
        stacks.load(tmp_path)
    (tmp_path / "dockyard.yaml").write_text("name: x\nprompts: {p: p.yaml, q: team/q}")
    stack = stacks.load(tmp_path)
    assert stack.prompt_path("p") == tmp_path / "p.yaml"
    assert stack.prompt_path("q") is None


def test_a_policy_lies_beside_the_file_and_goes_with_no_other(tmp_path: Path) -> None:
    file = tmp_path / "dockyard.yaml"
    file.write_text("policy: rules/policy.yaml")
    path = str(tmp_path / "rules" / "policy.yaml")
    settings = stacks.governed(Settings(stack=str(file)))
    assert settings.policy == path
    assert stacks.governed(settings) == settings
    assert stacks.governed(Settings(policy="own.yaml")).policy == "own.yaml"
    with pytest.raises(InvalidRequest, match=r"names the policy .* the setting `policy` own\.yaml"):
        stacks.governed(Settings(stack=str(file), policy="own.yaml"))


def test_the_verb_checks_and_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "dockyard.yaml"
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "support.yaml").write_text("template: '{{ input }}'")
    file.write_text(WHOLE)
    assert call(["stack", "check", str(file)]) == 0
    assert call(["stack", "show", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "helpdesk   route   small" in shown
    assert "75%" in shown
    file.write_text("routes: {a: {model: 'A B', guards: {deny_patterns: ['(']}}, b: {model: x, guards: {deny: []}}}")
    assert call(["stack", "check", str(file)]) == 1
    told = capsys.readouterr().out
    assert "A B" in told
    assert "no regular expression" in told
    assert "no such guard" in told
    file.write_text("policy: lost.yaml")
    assert call(["stack", "check", str(file)]) == 1
    assert "policy: there is no policy in" in capsys.readouterr().out
