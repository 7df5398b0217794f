"""A checkpoint from a stranger: nothing that comes with it is run, however it is named."""

import ast
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from moedb.capture.jobs.text.tokenization import context_length
from moedb.capture.models.checkpoints import find_checkpoint, weight_files
from moedb.capture.models.loading.pretrained import (
    load_config,
    load_model,
    load_skeleton,
    load_tokenizer,
)
from moedb.capture.models.loading.quantized import load_gptq
from moedb.capture.models.loading.safe_config import check_implementations
from moedb.capture.models.opening import weight_bytes
from moedb.capture.models.streaming.streamed_model import streamed_model
from moedb.errors import ModelError
from tests.conftest import ROOT

pytestmark = pytest.mark.model


CODE = """
from pathlib import Path

import transformers

Path({witness!r}).write_text("run", encoding="utf-8")


class HostileConfig(transformers.Qwen2MoeConfig):
    pass


class HostileModel(transformers.Qwen2MoeForCausalLM):
    config_class = HostileConfig


class HostileTokenizer(transformers.PreTrainedTokenizerFast):
    pass


def generate(model, *args, **kwargs):
    pass
"""
AUTO_MAP = {
    "AutoConfig": "hostile.HostileConfig",
    "AutoModelForCausalLM": "hostile.HostileModel",
    "AutoModel": "hostile.HostileModel",
    "AutoTokenizer": ["hostile.HostileTokenizer", "hostile.HostileTokenizer"],
}
TOKENIZER_MAP = {"AutoTokenizer": [None, "hostile.HostileTokenizer"]}


class Touches:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


def edit(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**content, **changes}))


@pytest.fixture
def hostile(random_model: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A checkpoint that can be captured, with code of its own, and the file that the code makes."""
    folder, witness = tmp_path / "hostile", tmp_path / "witness"
    shutil.copytree(random_model, folder)
    (folder / "hostile.py").write_text(CODE.format(witness=str(witness)))
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(CODE.format(witness=str(witness)))
    pickled = pickle.dumps({"weight": Touches(witness)})
    for name in ("pytorch_model.bin", "model.pt", "adapter_model.bin", "training_args.bin"):
        (folder / name).write_bytes(pickled)
    return folder, witness


def captured(folder: Path, store: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    """A capture by the command, with a yes to whatever is asked."""
    command = [
        *(sys.executable, "-c", "from moedb.cli import main; main()"),
        *("capture", "qwen-ioi", "--n", "2", "--arrays", "router_logits"),
        *("--store", str(store), "--model", str(folder), *options),
    ]
    return subprocess.run(
        command, input="y\n" * 50, capture_output=True, text=True, timeout=300, check=False
    )


def test_code_beside_a_known_model_is_passed_over(
    hostile: tuple[Path, Path], tmp_path: Path
) -> None:
    folder, witness = hostile
    edit(folder / "config.json", auto_map=AUTO_MAP)
    edit(folder / "tokenizer_config.json", auto_map=TOKENIZER_MAP)
    found = captured(folder, tmp_path / "store")
    assert found.returncode == 0, found.stderr
    assert "[y/N]" not in found.stdout + found.stderr
    assert not witness.exists()


def test_a_model_that_needs_its_code_is_refused(hostile: tuple[Path, Path], tmp_path: Path) -> None:
    folder, witness = hostile
    edit(folder / "config.json", auto_map=AUTO_MAP, model_type="hostile")
    found = captured(folder, tmp_path / "store")
    assert "[y/N]" not in found.stdout + found.stderr and not witness.exists()
    assert found.returncode == 1 and "Traceback" not in found.stderr
    assert "the code that comes with it (auto_map) is not run" in found.stderr
    assert not (tmp_path / "store" / "runs").exists()


@pytest.fixture
def nothing_asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    asked: list[str] = []

    def answer(prompt: str = "") -> str:
        asked.append(prompt)
        return "y"

    monkeypatch.setattr("builtins.input", answer)
    yield
    assert not asked


def test_every_way_to_load_asks_nothing(hostile: tuple[Path, Path], nothing_asked: None) -> None:
    folder, witness = hostile
    edit(folder / "config.json", auto_map=AUTO_MAP)
    edit(folder / "tokenizer_config.json", auto_map=TOKENIZER_MAP)
    checkpoint = find_checkpoint(str(folder))
    load_config(checkpoint)
    load_skeleton(checkpoint)
    load_model(checkpoint, "float32", "cpu")
    assert context_length(load_tokenizer(checkpoint)) is not None
    with streamed_model(checkpoint, "float32", "cpu", weight_bytes(checkpoint, "float32")):
        pass
    assert not witness.exists()


def test_code_where_the_model_or_the_tokenizer_has_no_other_is_refused(
    hostile: tuple[Path, Path], nothing_asked: None
) -> None:
    folder, witness = hostile
    vision = {"model_type": "qwen3_vl_moe_vision", "auto_map": AUTO_MAP}
    edit(folder / "config.json", **vision)
    with pytest.raises(ModelError, match="not a causal language model") as caught:
        load_skeleton(find_checkpoint(str(folder)))
    assert "which moedb does not run" in str(caught.value.hint)
    edit(folder / "config.json", model_type="seamless_m4t")  # a tokenizer of Python alone
    edit(
        folder / "tokenizer_config.json", auto_map=TOKENIZER_MAP, tokenizer_class="HostileTokenizer"
    )
    with suppress(ModelError):  # transformers may take its own class for the files
        load_tokenizer(find_checkpoint(str(folder)))
    assert not witness.exists()


IMPLEMENTATIONS: list[dict[str, Any]] = [
    {"attn_implementation": "hostile/kernel"},
    {"_attn_implementation": "hostile/kernel@main:attention"},
    {"_attn_implementation_internal": "hostile/kernel"},
    {"attn_implementation": {"": "hostile/kernel"}},
    {"attn_implementation": "flash_attention_2"},
    {"experts_implementation": "hostile/kernel"},
    {"_experts_implementation": "sonicmoe"},
]


@pytest.mark.parametrize("named", IMPLEMENTATIONS, ids=lambda named: json.dumps(named))
def test_the_attention_and_the_experts_are_our_own_choice(
    named: dict[str, Any],
    hostile: tuple[Path, Path],
    random_model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Were the library `kernels` here, a name such as OWNER/NAME would be downloaded and run."""

    def fetch(*arguments: Any, **keywords: Any) -> None:
        raise AssertionError(f"fetches a kernel: {arguments}")

    monkeypatch.setattr("transformers.modeling_utils.lazy_import_flash_attention", fetch)
    folder, _ = hostile
    edit(folder / "config.json", **named)
    checkpoint = find_checkpoint(str(folder))
    plain = load_model(find_checkpoint(str(random_model)), "float32", "cpu")
    ids = torch.tensor([[1, 2, 3, 4]])
    with (
        torch.no_grad(),
        streamed_model(
            checkpoint, "float32", "cpu", weight_bytes(checkpoint, "float32")
        ) as streamed,
    ):
        for model in (load_model(checkpoint, "float32", "cpu"), streamed):
            assert model.config._attn_implementation == "sdpa"
            assert model.config._experts_implementation == "grouped_mm"
            torch.testing.assert_close(model(ids).logits, plain(ids).logits)
    assert load_skeleton(checkpoint).config._attn_implementation == "sdpa"
    with pytest.raises(ModelError, match=r"config\.json: .* may be code of the hub"):
        check_implementations(folder)


def test_implementations_of_pytorch_may_be_named(random_model: Path, tmp_path: Path) -> None:
    shutil.copytree(random_model, tmp_path / "model")
    edit(tmp_path / "model" / "config.json", attn_implementation="eager", text_config={"a": {}})
    check_implementations(tmp_path / "model")
    edit(tmp_path / "model" / "config.json", text_config={"attn_implementation": "a/b"})
    with pytest.raises(ModelError, match="a/b"):
        check_implementations(tmp_path / "model")


def test_gptq_is_loaded_without_code(
    hostile: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """gptqmodel reads the folder by itself."""
    seen: list[dict[str, Any]] = []

    class GPTQModel:
        @staticmethod
        def load(folder: str, **keywords: Any) -> None:
            seen.append(keywords)
            raise ValueError("far enough")

    module = type(sys)("gptqmodel")
    module.GPTQModel = GPTQModel  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gptqmodel", module)
    folder, _ = hostile
    checkpoint = find_checkpoint(str(folder))
    with pytest.raises(ModelError, match="far enough"):
        load_gptq(checkpoint, "float32", "cpu")
    assert seen[0]["trust_remote_code"] is False
    edit(folder / "config.json", attn_implementation="hostile/kernel")
    with pytest.raises(ModelError, match="may be code of the hub"):
        load_gptq(checkpoint, "float32", "cpu")
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("named", "refused"),
    [
        ("pytorch_model.bin", True),
        ("model.pt", True),
        ("../elsewhere/model.safetensors", True),
        ("other.safetensors.index.json", True),
        (["model.safetensors"], True),
        ("model.safetensors", False),
    ],
)
def test_weights_of_another_name(named: Any, refused: bool, hostile: tuple[Path, Path]) -> None:
    folder, witness = hostile
    edit(folder / "config.json", transformers_weights=named)
    checkpoint = find_checkpoint(str(folder))
    if refused:
        with pytest.raises(ModelError, match="transformers_weights"):
            load_model(checkpoint, "float32", "cpu")
    else:
        load_model(checkpoint, "float32", "cpu")
    assert not witness.exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "../pytorch_model.bin", 3, ["a"]])
def test_an_index_that_names_something_else(name: Any, hostile: tuple[Path, Path]) -> None:
    folder, witness = hostile
    keys = load_file(folder / "model.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(keys, name)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="lacks 1 of 1 weight files"):
        weight_files(folder)
    assert not witness.exists()


def test_an_adapter_beside_the_model_is_refused(hostile: tuple[Path, Path]) -> None:
    folder, _ = hostile
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "hostile/base"}')
    with pytest.raises(ModelError, match=r"holds an adapter beside the model"):
        find_checkpoint(str(folder))


@pytest.mark.parametrize("method", ["quark", "torchao", "higgs", "auto-round", "metal", None, [1]])
@pytest.mark.parametrize("inside", [False, True])
def test_quantization_by_other_libraries_is_refused(
    method: Any, inside: bool, hostile: tuple[Path, Path]
) -> None:
    folder, _ = hostile
    settings = {"quantization_config": {"quant_method": method, "modules": ["hostile"]}}
    edit(folder / "config.json", **({"text_config": settings} if inside else settings))
    with pytest.raises(ModelError, match=r"read are fp8, gptq, mxfp4") as caught:
        load_config(find_checkpoint(str(folder)))
    assert "dequantize" in str(caught.value.hint)


@pytest.mark.parametrize("method", ["mxfp4", "fp8"])
def test_what_transformers_dequantizes_by_itself_is_dequantized(
    method: str, hostile: tuple[Path, Path]
) -> None:
    """On a GPU it would else fetch kernels from the hub."""
    folder, _ = hostile
    edit(folder / "config.json", quantization_config={"quant_method": method, "dequantize": False})
    config = load_config(find_checkpoint(str(folder)))
    assert config.quantization_config["dequantize"] is True


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": 7},
        {"model_type": "qwen2_moe", "auto_map": 3},
        {"auto_map": {"AutoConfig": 3}},
        {"hidden_act": "__import__('os')"},
        {"num_attention_heads": 0},
        {"num_attention_heads": "many"},
        {"rope_parameters": []},
        {"hidden_size": -1},
        {"attn_implementation": 3},
    ],
    ids=json.dumps,
)
def test_a_configuration_that_makes_no_sense_is_an_error_in_words(
    changes: dict[str, Any], hostile: tuple[Path, Path], tmp_path: Path
) -> None:
    folder, witness = hostile
    edit(folder / "config.json", **changes)
    checkpoint = find_checkpoint(str(folder))
    try:
        load_skeleton(checkpoint)
    except ModelError as error:
        assert checkpoint.name in error.message
    assert not witness.exists()


def calls(tree: ast.AST) -> "list[tuple[str, ast.Call]]":
    return [
        (node.func.attr, node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    ]


def test_no_call_of_transformers_leaves_the_question_open() -> None:
    """Left out, trust_remote_code means that transformers asks."""
    n_calls = 0
    for path in sorted((ROOT / "moedb").rglob("*.py")):
        for name, call in calls(ast.parse(path.read_text(encoding="utf-8"))):
            given = {ast.unparse(each.value) for each in call.keywords if each.arg is None}
            said = {each.arg: ast.unparse(each.value) for each in call.keywords}
            if name == "from_pretrained" or (name == "from_config" and "Auto" in ast.unparse(call)):
                n_calls += 1
                without = "WITHOUT_CODE" in given or said.get("trust_remote_code") == "False"
                assert without, f"{path}:{call.lineno}"
                if "Model" in ast.unparse(call.func):
                    pickles = name == "from_config" or said.get("use_safetensors") == "True"
                    assert pickles, f"{path}:{call.lineno}"
    assert n_calls > 6


def test_nothing_unpickles() -> None:
    """The pickles of CIFAR-10 aside, which a reader of its own takes apart."""
    for path in sorted((ROOT / "moedb").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imported = {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}  # type: ignore[misc]
        allowed = {"pickle"} if path.name == "pickles.py" else set()
        assert not imported & {"pickle", "dill", "cloudpickle", "joblib", "shelve"} - allowed, path
        for name, call in calls(tree):
            shown = ast.unparse(call.func)
            assert shown not in ("torch.load", "np.load", "pd.read_pickle"), (path, call.lineno)
            # a template is Jinja of transformers' sandbox, and only --local has one run
            if path.name != "chat.py":
                assert name not in ("apply_chat_template", "generate"), (path, call.lineno)
            assert "custom_generate" not in {each.arg for each in call.keywords}


def test_datasets_runs_no_scripts() -> None:
    """Since version 4 it has none."""
    requirements = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (lowest,) = re.findall(r'"datasets>=(\d+)', requirements)
    assert int(lowest) >= 4
