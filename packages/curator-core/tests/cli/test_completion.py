"""Completion in the shell and the help of the commands."""

from __future__ import annotations

import pytest

from curator_core.cli import BAD_USAGE, DONE, curate, run_command


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_of_a_shell_is_printed(shell, capsys):
    assert run_command(["completion", shell]) == DONE
    out = capsys.readouterr().out
    assert f"_CURATE_COMPLETE={shell}_complete" in out


def test_without_a_name_the_shell_in_use_is_taken_or_the_user_is_asked(capsys, monkeypatch):
    monkeypatch.setenv("SHELL", "/usr/bin/zsh")
    assert run_command(["completion"]) == DONE
    assert "zsh_complete" in capsys.readouterr().out
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    assert run_command(["completion"]) == BAD_USAGE
    assert "bash, zsh, fish" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "found"),
    [("curate ins", "inspect"), ("curate stages FilePart", "FilePartitioning"), ("curate head --ht", "--html")],
)
def test_commands_names_of_stages_and_options_are_completed(words, found, capsys, monkeypatch):
    for name, value in (("COMP_WORDS", words), ("COMP_CWORD", str(len(words.split()) - 1))):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("_CURATE_COMPLETE", "bash_complete")
    with pytest.raises(SystemExit):
        curate.main(args=[], prog_name="curate")
    assert f"plain,{found}" in capsys.readouterr().out.split()


def test_the_help_lists_every_command_with_what_it_does(capsys):
    assert run_command(["--help"]) == DONE
    lines = capsys.readouterr().out.splitlines()
    for name in curate.list_commands(None):
        assert any(line.split()[:1] == [name] and len(line.split()) > 2 for line in lines), name
