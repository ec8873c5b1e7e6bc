"""ONNX and OpenVINO graphs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from header_writers import field, ir_xml, onnx_bytes, onnx_port, onnx_tensor
from hypothesis import given, settings
from hypothesis import strategies as st

from dockyard.artifact.formats import detect, read_facts
from dockyard.artifact.formats.onnx import read_model
from dockyard.artifact.formats.openvino import read_ir
from dockyard.errors import ArtifactError, DockyardError, TruncatedContent, UnsafeContent, UnsupportedFormat

IDS = onnx_port("input_ids", "batch", "sequence", kind=7)


def _onnx(folder: Path, **parts: Any) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(onnx_bytes(**parts))
    return path


def test_an_onnx_graph_says_its_ports_and_weights(tmp_path: Path) -> None:
    tensors = [
        onnx_tensor("embeddings.word_embeddings.weight", 10, 4),
        onnx_tensor("encoder.layer.0.attention.self.query.weight", 4, 4),
        onnx_tensor("onnx::MatMul_7", 4, 8),
    ]
    node = field(1, "x") + field(1, "onnx::MatMul_7") + field(3, "/encoder/layer.0/intermediate/dense/MatMul")
    output = onnx_port("last_hidden_state", "batch", "sequence", 4)
    path = _onnx(tmp_path, inputs=[IDS], outputs=[output], tensors=tensors, nodes=[node + field(4, "MatMul")])
    model = read_model(path)
    assert (model.ir_version, model.producer) == (8, "pytorch 2.9")
    assert model.opsets == {"ai.onnx": 17, "com.microsoft": 1}
    assert (model.inputs[0].name, model.inputs[0].dtype, model.inputs[0].shape) == (
        "input_ids",
        "I64",
        ("batch", "sequence"),
    )
    assert model.operators == {"MatMul": 1}
    facts = read_facts([path])
    assert (facts.parameters, facts.weight_bytes, facts.quantization) == (88, 352, "FP32")
    assert facts.weights == {"embedding": 40, "attention": 16, "feed-forward": 32}
    assert facts.capabilities == ("embed",)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (onnx_port("logits", "batch", 1), ("rerank",)),
        (onnx_port("logits", "batch", 3), ("classify",)),
        (onnx_port("logits", "batch", "sequence", 10), ("complete",)),
        (onnx_port("something", 1), ()),
    ],
)
def test_what_a_graph_can_do_is_guessed_by_its_outputs(
    tmp_path: Path, output: bytes, expected: tuple[str, ...]
) -> None:
    assert read_facts([_onnx(tmp_path, inputs=[IDS], outputs=[output])]).capabilities == expected


def test_configuration_beside_a_graph_counts(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "num_hidden_layers": 3}))
    facts = read_facts([_onnx(tmp_path, inputs=[IDS], tensors=[onnx_tensor("w", 4, kind=3, data=bytes(4))])])
    assert (facts.architecture, facts.layers, facts.quantization, facts.positional) == ("bert", 3, "INT8", "learned")


def test_external_weights_must_be_there_and_whole(tmp_path: Path) -> None:
    tensor = onnx_tensor("w", 4, 4, location="model.onnx_data", offset="16", length="64")
    path = _onnx(tmp_path, tensors=[tensor])
    with pytest.raises(ArtifactError, match=r"model\.onnx_data"):
        read_facts([path])
    (tmp_path / "model.onnx_data").write_bytes(bytes(79))
    with pytest.raises(TruncatedContent, match="79 bytes"):
        read_facts([path])
    (tmp_path / "model.onnx_data").write_bytes(bytes(80))
    assert read_facts([path]).weight_bytes == 64
    assert [file.name for file in read_model(path).external] == ["model.onnx_data"]


@pytest.mark.parametrize("location", ["../../etc/passwd", "/etc/passwd"])
def test_external_weights_stay_in_the_folder(tmp_path: Path, location: str) -> None:
    with pytest.raises(UnsafeContent, match="passwd"):
        read_facts([_onnx(tmp_path, tensors=[onnx_tensor("w", 4, location=location)])])


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", TruncatedContent),
        (b"\x08\x08", UnsupportedFormat),
        (field(1, 8) + b"\x3a\xff\xff\xff\x7f", TruncatedContent),
        (field(1, 8) + field(7, field(5, onnx_tensor("w", 1 << 62, 1 << 62, data=b""))), UnsupportedFormat),
        (field(1, 8) + field(7, field(5, onnx_tensor("w", 1 << 30, data=b"1234"))), TruncatedContent),
        (field(1, 8) + field(7, field(5, onnx_tensor("w", 1, kind=99))), UnsupportedFormat),
        (b"\x08" + b"\xff" * 11, UnsupportedFormat),
        (b"\x0b", UnsupportedFormat),
    ],
)
def test_malformed_onnx_is_refused(tmp_path: Path, data: bytes, kind: type[DockyardError]) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(data)
    with pytest.raises(kind, match=r"bad\.onnx"):
        read_facts([path])


WHOLE_ONNX = onnx_bytes(inputs=[IDS], outputs=[onnx_port("logits", 1, 2)], tensors=[onnx_tensor("w", 4, 4)])


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=100),
        st.builds(
            lambda at, change: WHOLE_ONNX[:at] + change + WHOLE_ONNX[at + len(change) :],
            st.integers(0, len(WHOLE_ONNX)),
            st.binary(max_size=6),
        ),
        st.integers(0, len(WHOLE_ONNX)).map(lambda cut: WHOLE_ONNX[:cut]),
    )
)
def test_noise_never_breaks_the_onnx_reader(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "noise.onnx"
    path.write_bytes(data)
    try:
        read_facts([path])
    except DockyardError:
        pass


CONSTANTS = [
    ("self.model.embed_tokens.weight", "f16", (10, 4), 0, 80),
    ("self.model.layers.0.self_attn.q_proj.weight", "u4", (8, 8), 80, 32),
    ("self.model.layers.0.self_attn.q_proj.weight/scale", "f16", (8, 1), 112, 16),
    ("self.model.layers.0.mlp.up_proj.weight", "u4", (16, 8), 128, 64),
]
NNCF = '<nncf><weight_compression><mode value="int4_asym"/><group_size value="64"/></weight_compression></nncf>'


def _ir(folder: Path, xml: str, size: int = 192, name: str = "openvino_model") -> Path:
    path = folder / f"{name}.xml"
    path.write_text(xml)
    path.with_suffix(".bin").write_bytes(bytes(size))
    return path


def test_an_ir_says_its_weights_and_how_they_were_compressed(tmp_path: Path) -> None:
    path = _ir(tmp_path, ir_xml(CONSTANTS, NNCF))
    _ir(tmp_path, ir_xml([("vocabulary", "u8", (500,), 0, 500)]), 500, name="openvino_tokenizer")
    (tmp_path / "config.json").write_text(
        json.dumps(
            {"model_type": "llama", "num_attention_heads": 2, "hidden_size": 8, "architectures": ["XForCausalLM"]}
        )
    )
    facts = read_facts([tmp_path])
    assert (facts.format, facts.architecture, facts.quantization) == ("openvino", "llama", "INT4 (int4_asym)")
    assert facts.weights == {"embedding": 40, "attention": 64, "feed-forward": 128}
    assert facts.weight_bytes == 192
    assert facts.capabilities == ("complete",)
    assert read_ir(path).rt_info["nncf/weight_compression/group_size"] == "64"
    assert read_facts([path, path.with_suffix(".bin")]) == facts
    assert detect(path) == "openvino"


def test_constants_that_share_bytes_count_once(tmp_path: Path) -> None:
    shared = ("self.lm_head.weight", "f16", (10, 4), 0, 80)
    info = '<info name="OpenVINO Runtime" value="2026.4"/>'
    path = _ir(tmp_path, ir_xml([*CONSTANTS, shared], info))
    assert read_facts([path]).weight_bytes == 192
    assert read_ir(path).rt_info == {"OpenVINO Runtime": "2026.4"}


def test_weights_of_an_ir_must_be_there_and_whole(tmp_path: Path) -> None:
    path = _ir(tmp_path, ir_xml(CONSTANTS), size=191)
    with pytest.raises(TruncatedContent, match="191 bytes"):
        read_facts([path])
    path.with_suffix(".bin").unlink()
    with pytest.raises(ArtifactError, match=r"openvino_model\.bin"):
        read_facts([path])


BOMB = '<!DOCTYPE lolz [<!ENTITY lol "lol"><!ENTITY lol2 "&lol;&lol;&lol;&lol;">]>'
OUTSIDE = '<!DOCTYPE foo [<!ENTITY xxe SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize("prolog", [BOMB, OUTSIDE, '<!DOCTYPE net SYSTEM "http://localhost/x.dtd">'])
def test_document_types_and_entities_are_refused(tmp_path: Path, prolog: str) -> None:
    with pytest.raises(UnsafeContent, match="document type or an entity"):
        read_facts([_ir(tmp_path, ir_xml(CONSTANTS, prolog=prolog))])


@pytest.mark.parametrize(
    ("xml", "kind"),
    [
        (ir_xml(CONSTANTS)[:-40], TruncatedContent),
        (ir_xml(CONSTANTS).replace("</edges>", "<"), DockyardError),
        ("<net>" * 100, UnsupportedFormat),
        ("<net", DockyardError),
        ("<other><net/></other>", UnsupportedFormat),
        (ir_xml([("w", "x7", (1,), 0, 4)]), UnsupportedFormat),
        (ir_xml([("w", "f32", (99,), 0, 4)]), UnsupportedFormat),
        (ir_xml([("w", "f32", (1,), -1, 4)]), UnsupportedFormat),
        (ir_xml([("w", "f32", (10**17, 10**17), 0, 4)]), UnsupportedFormat),
        ('<?xml version="1.0" encoding="nonsense"?><net/>', UnsupportedFormat),
    ],
)
def test_malformed_ir_is_refused(tmp_path: Path, xml: str, kind: type[DockyardError]) -> None:
    if "edges/>" in xml and kind is DockyardError:
        xml = xml.replace("<edges/>", "<edges>")
    with pytest.raises(kind, match=r"openvino_model\.xml"):
        read_facts([_ir(tmp_path, xml)])


WHOLE_IR = ir_xml(CONSTANTS, NNCF).encode()


@settings(max_examples=200, deadline=None)
@given(at=st.integers(0, len(WHOLE_IR)), change=st.binary(max_size=8), cut=st.booleans())
def test_noise_never_breaks_the_ir_reader(
    tmp_path_factory: pytest.TempPathFactory, at: int, change: bytes, cut: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "noise.xml"
    path.write_bytes(WHOLE_IR[:at] + change + (b"" if cut else WHOLE_IR[at + len(change) :]))
    path.with_suffix(".bin").write_bytes(bytes(192))
    try:
        read_facts([path])
    except DockyardError:
        pass
