"""Numbers on the command line: all of them have a range, and are checked before torch is there."""

import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from moedb.cli import cli, run_cli


def numeric_options(
    command: click.Command, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Option]]:
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from numeric_options(child, (*path, name))
        return
    for parameter in command.params:
        number = isinstance(parameter.type, click.types.IntParamType | click.types.FloatParamType)
        if isinstance(parameter, click.Option) and number:
            yield path, parameter


OPTIONS = list(numeric_options(cli))


@pytest.mark.parametrize(
    ("path", "option"), OPTIONS, ids=[f"{' '.join(path)} {o.opts[0]}" for path, o in OPTIONS]
)
def test_every_number_has_a_range(
    path: tuple[str, ...], option: click.Option, capfd: pytest.CaptureFixture[str]
) -> None:
    assert isinstance(option.type, click.IntRange | click.FloatRange)
    assert option.type.min is not None and option.type.min >= 0
    wrong = [-3, option.type.min - 1]
    wrong += [option.type.max + 1] if option.type.max is not None else []
    wrong += ["nan", "inf", "-inf"] if isinstance(option.type, click.FloatRange) else []
    for value in map(str, wrong):
        assert run_cli([*path, f"{option.opts[0]}={value}"]) == 2, value
        assert f"Invalid value for '{option.opts[0]}'" in capfd.readouterr().err, value


def test_the_options_of_captures_are_among_them() -> None:
    found = {(*path, option.opts[0]) for path, option in OPTIONS}
    for name in ("--n", "--seed", "--batch-size", "--budget", "--max-memory", "--limit"):
        assert ("capture", "qwen-ioi", name) in found
    assert ("intervene", "--draws") in found and ("export", "--precision") in found


@pytest.mark.parametrize(
    "arguments",
    [
        ("capture", "qwen-ioi", "--n", "-3"),
        ("capture", "qwen-ioi", "--budget", "-1"),
        ("capture", "cifar-moe", "--draws", "0"),
        ("capture", "text", "--dataset", "no-such-file.jsonl"),
        ("intervene", "--run", "x", "--kind", "patch", "--batch-size", "0"),
        ("train", "cifar-moe", "--aux-coefficient", "nan"),
    ],
)
def test_wrong_values_are_refused_before_torch_is_imported(arguments: tuple[str, ...]) -> None:
    code = (
        "import sys; from moedb.cli import run_cli; "
        f"print(run_cli({list(arguments)!r}), 'torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["2", "False"], run.stderr
