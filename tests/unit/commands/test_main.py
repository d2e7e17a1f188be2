from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys

import click
import pytest

from encoder import BundleError
from streams.commands import main
from streams.errors import ColdstreamError, ConfigurationError

PROGRAM = [sys.executable, "-m", "streams.commands.main"]


def use(monkeypatch, function):
    """Make `coldstream settings` do something else."""
    monkeypatch.setattr(main.LazyGroup, "get_command", lambda *_: click.Command("settings", callback=function))


@pytest.mark.parametrize("name", main.COMMANDS)
def test_every_command_exists_and_its_help_has_an_example(name):
    module = importlib.import_module(f"streams.commands.{name.replace('-', '_')}")
    help_text = module.command.get_help(click.Context(module.command, info_name=name))
    subcommands = getattr(module.command, "commands", {})
    texts = [help_text, *(one.get_help(click.Context(one, info_name=one.name)) for one in subcommands.values())]
    assert "xample" in " ".join(texts), name
    assert f"coldstream {name}" in " ".join(texts)


def test_help_lists_every_command_and_imports_nothing_heavy():
    code = (
        "import sys; from streams.commands.main import run; run(['--help']);"
        "heavy = {'faust', 'aiokafka', 'onnxruntime', 'qdrant_client', 'qdrant_edge', 'numpy', 'rich', 'aiohttp'};"
        "print('HEAVY', sorted(heavy & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "HEAVY []" in said
    assert all(name in said for name in main.COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsense"], "No such command 'nonsense'. See: coldstream --help"),
        (
            ["settings", "--nonsense"],
            "coldstream settings: No such option: --nonsense. See: coldstream settings --help",
        ),
        (["recommend"], "Missing argument 'USER'"),
        (["recommend", "u", "--limit", "0"], "--limit"),
        (["dataset", "netflix", "."], "movielens-100k"),
    ],
)
def test_wrong_use_is_one_line_and_2(capsys, arguments, words):
    assert main.run(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert words in said.err


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (ConfigurationError("set COLDSTREAM_X"), 2, "coldstream: set COLDSTREAM_X"),
        (ColdstreamError("line one\nline \x1b[31mtwo"), 1, "coldstream: line one line [31mtwo"),
        (BundleError("weights.bin is cut; install the package again"), 1, "coldstream: weights.bin is cut; install"),
        (FileNotFoundError(2, "No such file", "a.jsonl"), 1, "No such file: a.jsonl"),
        (ZeroDivisionError("division by zero"), 1, "COLDSTREAM_LOG_LEVEL=DEBUG"),
    ],
)
def test_errors_are_one_line_on_stderr(monkeypatch, capsys, error, status, words):
    monkeypatch.delenv("COLDSTREAM_LOG_LEVEL", raising=False)

    def fail():
        raise error

    use(monkeypatch, fail)
    assert main.run(["settings"]) == status
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert words in said.err
    assert "\x1b" not in said.err


def test_a_defect_shows_its_traceback_on_request(monkeypatch):
    monkeypatch.setenv("COLDSTREAM_LOG_LEVEL", "DEBUG")
    use(monkeypatch, lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main.run(["settings"])


def test_a_command_may_name_its_own_status(monkeypatch):
    use(monkeypatch, lambda: 1)
    assert main.run(["settings"]) == 1
    use(monkeypatch, lambda: None)
    assert main.run(["settings"]) == 0


def test_ctrl_c_is_quiet_and_130():
    code = (
        "import signal, time, click; from streams.commands import main\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background ignores it\n"
        "def wait(): print('waiting', flush=True); time.sleep(60)\n"
        "main.LazyGroup.get_command = lambda *_: click.Command('settings', callback=wait)\n"
        "main.main(['settings'])"
    )
    program = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert program.stdout.readline() == "waiting\n"
    program.send_signal(signal.SIGINT)
    out, err = program.communicate(timeout=20)
    assert program.returncode == 130
    assert out == ""
    assert err.strip() == ""


def test_a_reader_who_leaves_is_no_error(tmp_path):
    command = f"{sys.executable} -m streams.commands.main settings | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    )
    assert "Traceback" not in done.stderr
    assert done.stdout.startswith("| Variable")


def test_version(capsys):
    assert main.run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("coldstream ")
