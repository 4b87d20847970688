"""Rules that the code keeps: who imports whom, how large a file grows, what the locks hold."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
APP = ROOT / "app"

# What each part of app/ may import besides itself. A new part gets a line here.
MAY_IMPORT = {
    "roles": "",
    "audio": "roles",
    "observability": "roles",
    "models": "roles observability",
    "engines": "roles audio models observability",
    "clients": "roles audio models observability",
    "stores": "roles audio observability",
    "dialogue": "roles audio observability",
    "insights": "roles dialogue stores",
    "settings": "roles dialogue",
    "tools": "roles dialogue settings",
    "security": "roles stores settings",
    "runtime": "roles audio models engines clients stores dialogue observability security settings",
    "api": "roles audio stores dialogue insights observability security settings runtime models tools",
    "main": "roles audio stores dialogue insights observability security settings runtime models tools api",
    # The client side of our own protocol: it knows the messages and no more of the server.
    "talk": "roles audio api",
    "cli": "roles audio engines stores dialogue insights observability security settings runtime models api "
    "main talk",
}

# Large, or not installed with every deployment: imported only by the function that needs them.
HEAVY = set(
    """asyncpg av ctranslate2 deepgram faster_whisper gruut gruut_lang_en httpx2 huggingface_hub jieba
    langchain_core langsmith mcp misaki obstore onnx onnxruntime openai opuslib_next sounddevice soniox
    speechmatics tokenizers torch transformers xllamacpp""".split()
)

MAX_LINES = 600


def imports(tree: ast.AST, *, deferred: bool) -> Iterator[tuple[int, str]]:
    """Line and full name of each module that is imported; `deferred`: also inside functions. What
    only type checkers see (`if TYPE_CHECKING`) is left out."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, "imports are absolute"
            # `from app.api import rest` imports the module app.api.rest.
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        elif deferred or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from imports(node, deferred=deferred)


def modules() -> Iterator[tuple[Path, str, ast.Module]]:
    """Each file of app/, the part it belongs to, and its syntax tree."""
    for path in sorted(APP.rglob("*.py")):
        part = path.relative_to(APP).parts[0].removesuffix(".py")
        if part != "__init__":
            yield path.relative_to(ROOT), part, ast.parse(path.read_text())


def repository_files() -> list[Path]:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout.decode()
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


def test_imports_point_one_way() -> None:
    wrong = []
    for path, part, tree in modules():
        assert part in MAY_IMPORT, f"{path}: say in MAY_IMPORT what app/{part} may import"
        allowed = {part, "__version__", *MAY_IMPORT[part].split()}
        for line, name in imports(tree, deferred=True):
            names = name.split(".")
            if names[0] == "app" and len(names) > 1 and names[1] not in allowed:
                wrong.append(f"{path}:{line} imports {name}")
    assert wrong == []


def test_roles_need_nothing_but_numpy() -> None:
    allowed = sys.stdlib_module_names | {"numpy", "app"}
    for path, part, tree in modules():
        if part == "roles":
            names = {name.split(".")[0] for _, name in imports(tree, deferred=True)}
            assert names <= allowed, f"{path} imports {names - allowed}"


def test_heavy_libraries_are_imported_where_they_are_used() -> None:
    wrong = [
        f"{path}:{line} imports {name}"
        for path, _, tree in modules()
        for line, name in imports(tree, deferred=False)
        if name.split(".")[0] in HEAVY
    ]
    assert wrong == []


def test_the_import_rules_see_what_they_should() -> None:
    tree = ast.parse(
        "import av\n"
        "try:\n    from onnxruntime import InferenceSession\nexcept ImportError: pass\n"
        "if TYPE_CHECKING:\n    import torch\n"
        "class A:\n    import openai\n    def f(self):\n        import gruut\n"
        "async def g():\n    from app.api import rest\n"
    )
    top = [name for _, name in imports(tree, deferred=False)]
    assert top == ["av", "onnxruntime.InferenceSession", "openai"]
    assert [name for _, name in imports(tree, deferred=True)] == [*top, "gruut", "app.api.rest"]


def test_files_stay_small() -> None:
    code = {".py", ".js", ".ts", ".css", ".html", ".sh", ""}
    long = {
        str(path.relative_to(ROOT)): lines
        for path in repository_files()
        if path.suffix in code and (lines := len(path.read_bytes().splitlines())) > MAX_LINES
    }
    assert long == {}


def test_names_have_no_spaces() -> None:
    names = [str(path.relative_to(ROOT)) for path in repository_files()]
    assert [name for name in names if not re.fullmatch(r"[\w.+/-]+", name, re.ASCII)] == []


def test_nothing_names_a_registry_host_or_a_path_of_one_machine() -> None:
    hosts = (
        "pypi.org pythonhosted.org registry.npmjs registry.yarnpkg deb.debian security.debian archive.ubuntu"
    )
    patterns = [re.escape(host) for host in hosts.split()]
    patterns += [r"(?<![\w.])/(work|root)/", r"\.\./shared\b"]
    forbidden = re.compile("|".join(patterns))
    wrong = []
    for path in repository_files():
        if path == Path(__file__):
            continue
        try:
            text = path.read_text()
        except UnicodeDecodeError:  # a picture
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if found := forbidden.search(line):
                wrong.append(f"{path.relative_to(ROOT)}:{number} has {found.group()}")
    assert wrong == []


# --- dependencies ------------------------------------------------------------------------------

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKS = {
    "requirements.dev.txt": set(PROJECT["optional-dependencies"]),
    "requirements.embedded.txt": set(PROJECT["optional-dependencies"]) - {"dev"},
    "requirements.prod.txt": {"insights", "mcp", "openai", "postgres", "redis", "s3", "streaming"},
}


def declared(extras: set[str]) -> list[Requirement]:
    lists = [PROJECT["dependencies"], *(PROJECT["optional-dependencies"][extra] for extra in sorted(extras))]
    return [Requirement(line) for lines in lists for line in lines]


def pins(lock: str) -> dict[str, set[Version]]:
    """Each package of a lock with its version, or versions where they differ by platform."""
    found: dict[str, set[Version]] = {}
    text = (ROOT / lock).read_text().replace("\\\n", " ")
    for line in text.splitlines():
        if line and not line.startswith("#"):
            requirement = re.fullmatch(
                r"(\S+?)==([^\s;]+)( ;[^#]*?)?((\s+--hash=sha256:[0-9a-f]{64})+)\s*", line
            )
            assert requirement, f"{lock}: not a pin with hashes: {line[:80]}"
            found.setdefault(canonicalize_name(requirement[1]), set()).add(Version(requirement[2]))
    return found


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_fit_what_is_declared(lock: str) -> None:
    pinned = pins(lock)
    for requirement in declared(LOCKS[lock]):
        versions = pinned.get(canonicalize_name(requirement.name), set())
        assert versions, f"{requirement} is not in {lock}: run scripts/lock"
        assert all(version in requirement.specifier for version in versions), f"{requirement}: {versions}"


def test_what_is_run_is_what_is_tested() -> None:
    tested = pins("requirements.dev.txt")
    for lock in LOCKS:
        other = {
            name: versions for name, versions in pins(lock).items() if not versions <= tested.get(name, set())
        }
        assert other == {}, f"{lock} differs from requirements.dev.txt: run scripts/lock"


def test_the_hosted_lock_is_slim() -> None:
    heavy = """ctranslate2 faster-whisper gruut lightning matplotlib misaki onnxruntime pandas plotly
        pyannote-audio pytorch-lightning scipy speechbrain streamlit torch torchaudio transformers
        xllamacpp""".split()
    assert not set(heavy) & set(pins("requirements.prod.txt"))
    assert "torch" not in pins("requirements.embedded.txt")


def test_what_is_imported_is_declared() -> None:
    known = {
        canonicalize_name(requirement.name) for requirement in declared(set(LOCKS["requirements.dev.txt"]))
    }
    owners = packages_distributions()
    missing = set()
    for path, _, tree in modules():
        for line, name in imports(tree, deferred=True):
            top = name.split(".")[0]
            if top == "app" or top in sys.stdlib_module_names:
                continue
            if not known & {canonicalize_name(owner) for owner in owners.get(top, [])}:
                missing.add(f"{path}:{line} imports {name}")
    assert missing == set()


def test_starting_loads_no_engine(tmp_path: Path) -> None:
    """The application is made, for a hosted model, without a heavy library being imported."""
    script = f"""
import sys
from pathlib import Path
from app.main import create_app
from app.settings import Settings
create_app(Settings(data_dir=Path("data"), models_dir=Path("models"), llm_provider="openai", llm_api_key="x"))
print(sorted(set(sys.modules) & {HEAVY | {"pip", "scipy", "pandas"}}))
"""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_nothing_can_swallow_a_cancellation() -> None:
    """Before Python 3.12 `asyncio.wait_for` loses one that comes as its work ends, and a task that was
    cancelled goes on. `asyncio.timeout` does not."""
    for path in (ROOT / "app").rglob("*.py"):
        assert "wait_for(" not in path.read_text(), path
