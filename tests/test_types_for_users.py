"""Type checkers and editors find the classes that users import, with parameters and documentation."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import jedi
import pytest
import stubs

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
PIPELINE = Path(__file__).parent / "typing" / "user_pipeline.py"

# Packages whose types take minutes to read and are not needed in a user's file.
HEAVY = ["ray", "torch", "transformers", "nvidia", "cosmos_xenna", "pandas", "numpy", "trafilatura", "pyarrow"]


def expected() -> tuple[dict[int, str], set[int]]:
    """The expected types in `PIPELINE`, by line, and the lines with mistakes."""
    lines = list(enumerate(PIPELINE.read_text().splitlines(), start=1))
    types = {number: found[1] for number, line in lines if (found := re.search(r"  # -> (.+)$", line))}
    mistakes = {number for number, line in lines if line.endswith("  # error")}
    assert len(types) > 15
    assert len(mistakes) > 8
    return types, mistakes


def without_modules(shown: str) -> str:
    """``list[curator_core.model.task.Task[Any]]`` as ``list[Task[Any]]``."""
    return re.sub(r"\b(?:\w+\.)+(?=\w)", "", shown)


def opened(code: str) -> jedi.Script:
    # Use the environment with our packages, not the one that the shell has activated.
    return jedi.Script(code, environment=jedi.create_environment(sys.prefix, safe=False))


def completed(code: str) -> list[str]:
    """The completions that an editor offers at the end of ``code``."""
    return [one.name for one in opened(code).complete()]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_mypy_in_strict_mode_knows_the_types_of_a_users_pipeline(tmp_path: Path) -> None:
    config = tmp_path / "mypy.ini"
    skipped = "".join(f"[mypy-{name}.*]\nfollow_imports = skip\nignore_missing_imports = True\n" for name in HEAVY)
    config.write_text(f"[mypy]\nstrict = True\n{skipped}")
    # Run outside of the checkout, since users do not have our settings and paths.
    done = subprocess.run(
        [BIN / "mypy", f"--config-file={config}", f"--cache-dir={ROOT / '.mypy_cache' / 'users'}", PIPELINE],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.findall(r"user_pipeline\.py:(\d+): (note|error): (.*)", done.stdout)
    types = {int(n): text for n, kind, text in found if kind == "note" and text.startswith("Revealed type is")}
    types = {number: without_modules(text.split('"')[1]) for number, text in types.items()}
    mistakes = {int(number) for number, kind, _ in found if kind == "error"}
    assert (types, mistakes) == expected(), done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_basedpyright_knows_the_types_of_a_users_pipeline(tmp_path: Path) -> None:
    config = tmp_path / "pyrightconfig.json"
    config.write_text(json.dumps({"include": [str(PIPELINE)], "typeCheckingMode": "strict"}))
    done = subprocess.run(
        [BIN / "basedpyright", "--project", config, "--pythonpath", sys.executable, "--outputjson"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    found = [
        (one["range"]["start"]["line"] + 1, one["severity"], one["message"])
        for one in json.loads(done.stdout)["generalDiagnostics"]
    ]
    types = {n: text.split(' is "', 1)[1].removesuffix('"') for n, severity, text in found if severity == "information"}
    mistakes = {number for number, severity, _ in found if severity != "information"}
    assert (types, mistakes) == expected(), done.stdout + done.stderr


@pytest.mark.slow
def test_an_editor_completes_names_and_parameters() -> None:
    assert completed("from curator_text import WordC") == ["WordCountFilter"]
    assert completed("import curator_text\ncurator_text.readers.ParquetR") == ["ParquetRead", "ParquetReader"]
    for call, parameter in [
        ("from curator_text import WordCountFilter\nWordCountFilter(min_w", "min_words="),
        ("from curator_image import ImageReader\nImageReader(pat", "paths="),
        ("from curator_core import Pipeline\nPipeline([]).run(run_d", "run_dir="),
    ]:
        assert parameter in completed(call)
    made = "from curator_text import WordCountFilter\nwords = WordCountFilter()\nwords.min_w"
    assert completed(made) == ["min_words"]


@pytest.mark.slow
def test_an_editor_shows_documentation_and_signature_on_hover() -> None:
    script = opened("from curator_text import WordCountFilter\nWordCountFilter(")
    (hover,) = script.help(2, 3)
    assert "Keep documents whose number of words is in a range." in hover.docstring()
    (signature,) = script.get_signatures(2, len("WordCountFilter("))
    assert "min_words: int=50" in signature.to_string()
    (definition,) = script.goto(2, 3, follow_imports=True)
    assert definition.module_path is not None
    assert definition.module_path.suffix == ".py"


def test_a_stub_that_does_not_match_its_table_is_found(tmp_path: Path) -> None:
    package = tmp_path / "packages" / "mine"
    init = package / "src" / "mine" / "__init__.py"
    init.parent.mkdir(parents=True)
    (package / "pyproject.toml").write_text('[project]\nname = "mine"\nversion = "1"\n')
    init.write_text('"""Mine."""\n\n_HOME = {"Late": "far.away", "Early": "near"}\n\n__version__ = "1"\n')
    stub = init.with_suffix(".pyi")

    (wanted,) = stubs.stale(tmp_path).values()
    assert wanted is not None
    assert "from mine.far.away import Late as Late\nfrom mine.near import Early as Early\n" in wanted
    assert '__all__ = ["Early", "Late"]' in wanted
    assert "__version__: str" in wanted
    stub.write_text(wanted)
    assert stubs.stale(tmp_path) == {}

    init.write_text('"""Mine."""\n\n_HOME = {"Late": "near", "Early": "near"}\n')
    assert list(stubs.stale(tmp_path)) == [stub]
    init.write_text('"""Mine, at once."""\n')
    assert stubs.stale(tmp_path) == {stub: None}, "a stub without a table hides what the package really holds"
