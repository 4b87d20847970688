"""The example of docs/tools.md runs as it stands, with the settings that it names."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from serving import make_settings

from app.settings import Settings
from app.tools import Caller
from app.tools.toolbox import open_toolbox

PAGE = (Path(__file__).parents[2] / "docs" / "tools.md").read_text(encoding="utf-8")


async def test_the_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [example] = re.findall(r"^```python\n# (\w+)\.py\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / f"{example[0]}.py").write_text(example[1])
    [tools] = re.findall(r"^TOOLS=(\S+) colloquy serve$", PAGE, re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    toolbox = open_toolbox(make_settings(tmp_path, tmp_path, tools=tools))
    assert [tool.name for tool in toolbox.tools] == ["set_home", "forecast", "now"]
    ann, bob = (toolbox.of(Caller(owner, "s")) for owner in ("ann", "bob"))
    nowhere = await ann.call("forecast", "{}")
    assert (nowhere.ok, nowhere.text) == (False, "forecast failed: ask the person where they live")
    assert (await ann.call("set_home", '{"city": "Rome"}')).text == "done"
    found = await ann.call("forecast", '{"unit": "fahrenheit"}')
    assert json.loads(found.text) == {"city": "Rome", "sky": "clear", "degrees": 70}
    assert not (await bob.call("forecast", "{}")).ok
    assert (await bob.call("now", "{}")).ok


def test_the_servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [servers] = re.findall(r"^MCP_SERVERS=(.+)$", PAGE, re.MULTILINE)
    monkeypatch.setenv("MCP_SERVERS", servers)
    settings = Settings(_env_file=None, data_dir=tmp_path, models_dir=tmp_path)  # type: ignore[call-arg]
    assert list(settings.mcp_servers) == ["files", "shop"]
    assert settings.mcp_servers["shop"].url == "https://shop.example/mcp"
    assert "Bearer" not in str(settings)
