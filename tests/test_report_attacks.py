"""The report of a run whose every text was planted by somebody else, opened in a browser: it shows,
and does nothing. The same without the page's own policy, which then is no second line of defence.
"""

import base64
import html
import io
import re
import shutil
from pathlib import Path

import nbformat
import pytest
import yaml
from browsing import served, watch
from PIL import Image, PngImagePlugin

from mnist_nbdev.base.files import (
    read_json,
    read_sealed_json,
    sha256_file,
    write_json,
    write_sealed_json,
)
from mnist_nbdev.runs.report import SAFE_TAGS, write_report
from mnist_nbdev.runs.run import Run

pytestmark = [pytest.mark.integration, pytest.mark.security]
ACT = "window.owned=1;fetch('http://127.0.0.1:9/')"
MARKUP = [
    f"<script>{ACT}</script>",
    f'<img src=x onerror="{ACT}">',
    f'<svg onload="{ACT}"><animate onbegin="{ACT}" attributeName=x dur=1s /></svg>',
    f'<svg><script href="data:text/javascript,{ACT}"></script></svg>',
    f'<iframe srcdoc="<script>parent.{ACT}</script>"></iframe>',
    f'<object data="data:text/html,<script>{ACT}</script>"></object>',
    f'<a href="javascript:{ACT}">click</a>',
    f'<a href="data:text/html,<script>{ACT}</script>">click</a>',
    f'<details open ontoggle="{ACT}"><summary>x</summary></details>',
    f"<img src=\"data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' onload='{ACT}'/>\">",
    f'<math><mtext></p><style><img src=x onerror="{ACT}"></style></mtext></math>',
    f'<noscript><p title="</noscript><img src=x onerror={ACT}>"></noscript>',
    f"</style></title></textarea><script>{ACT}</script>",
    '<style>@import "http://127.0.0.1:9/a.css"; body{background:url(http://127.0.0.1:9/b)}</style>',
    '<link rel=stylesheet href="http://127.0.0.1:9/c.css">',
    '<meta http-equiv=refresh content="0;url=/x">',
    '<form action="http://127.0.0.1:9/"><input autofocus onfocus="window.owned=1"></form>',
    '<img src="http://127.0.0.1:9/pixel.png"><video src="http://127.0.0.1:9/v" autoplay></video>',
]
ALL = "\n".join(MARKUP)
SETTING = ALL.replace("\n", " ")


def planted_picture() -> str:
    "A PNG whose metadata are markup, as base64."
    notes = PngImagePlugin.PngInfo()
    notes.add_text("Title", ALL)
    file = io.BytesIO()
    Image.new("L", (4, 4)).save(file, "PNG", pnginfo=notes)
    return base64.b64encode(file.getvalue()).decode()


def plant(notebook: Path) -> None:
    "Put everything that acts into a notebook: as prose, as each kind of output, as names."
    found = nbformat.read(notebook, as_version=4)
    found.metadata["title"] = ALL
    outputs = [
        nbformat.v4.new_output("display_data", {kind: content})
        for kind, content in {
            "text/html": ALL,
            "text/markdown": ALL,
            "text/latex": f"$\\href{{javascript:{ACT}}}{{x}}$ {ALL}",
            "image/svg+xml": f'<svg xmlns="http://www.w3.org/2000/svg" onload="{ACT}"/>',
            "application/javascript": ACT,
            "text/plain": ALL,
            "image/png": planted_picture(),
            "image/jpeg": f'x" onerror="{ACT}',
            "application/vnd.jupyter.widget-view+json": {"model_id": ALL, "version_major": 2},
        }.items()
    ]
    outputs.append(nbformat.v4.new_output("stream", name="stdout", text="\x1b[31m" + ALL))
    outputs.append(
        nbformat.v4.new_output("error", ename=ALL, evalue=ALL, traceback=ALL.splitlines())
    )
    found.cells.insert(0, nbformat.v4.new_code_cell("1", outputs=outputs))
    prose = nbformat.v4.new_markdown_cell(f"# {MARKUP[1]}\n\n{ALL}\n\n[x](javascript:{ACT})")
    prose["attachments"] = {"a.svg": {"image/svg+xml": f'<svg onload="{ACT}"/>'}}
    found.cells.insert(0, prose)
    found.cells.insert(0, nbformat.v4.new_raw_cell(ALL, metadata={"raw_mimetype": "text/html"}))
    nbformat.write(found, notebook)


@pytest.fixture(scope="module")
def report(quick_project, tmp_path_factory) -> Path:
    "The report of a run all of whose texts are hostile."
    folder = tmp_path_factory.mktemp("planted") / "run"
    run = Path(shutil.copytree(quick_project / "artifacts/runs/first", folder))
    settings = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    settings["data"]["root"] = settings["logging"]["log_file"] = SETTING
    (run / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    request = read_sealed_json(run / "request.json")
    seal = {"config_sha256": sha256_file(run / "config.yaml")}
    write_sealed_json(run / "request.json", {**request, **seal})
    for notebook in sorted((run / "notebooks").glob("*.ipynb")):
        plant(notebook)
    for name in ("summary.json", "decision.json", "environment.json"):
        write_json(run / name, with_markup(read_json(run / name)))
    dataset = run / "data/dataset.json"
    facts = read_sealed_json(dataset)
    # The names of classes may hold no markup.
    free = {"name": "<script>owned = 1</script>", "licence": with_markup("licence")}
    write_sealed_json(dataset, {**with_markup(facts), "spec": {**facts["spec"], **free}})
    with pytest.warns(UserWarning, match="not able to be represented"):  # the widget, left out
        return write_report(Run(run))


def with_markup(value: object) -> object:
    "The same with markup behind every text, but for the words that decide what is shown."
    if isinstance(value, dict):
        return {name: with_markup(item) for name, item in value.items()}
    if isinstance(value, list):
        return [with_markup(item) for item in value]
    known = ("approved", "rejected", "passed", "failed", "insufficient", "sample", "pipeline")
    return value + SETTING if isinstance(value, str) and value not in known else value


@pytest.mark.parametrize("policy", [True, False], ids=["as it is", "without its policy"])
def test_a_report_full_of_planted_markup_shows_and_does_nothing(report, browser, policy):
    context = browser.new_context(bypass_csp=not policy)
    tab = context.new_page()
    asked: list[str] = []
    tab.on("dialog", lambda dialog: asked.append(dialog.message))
    with served(report.parent) as address:
        wrong = watch(tab, address)
        tab.goto(f"{address}report.html")
        for summary in tab.locator("summary").all():
            summary.click()
        assert tab.evaluate("window.owned") is None
        assert tab.url == f"{address}report.html"
        acting = tab.evaluate(
            "[...document.querySelectorAll('*')].flatMap(e => [...e.attributes]"
            ".filter(a => /^on|^srcdoc$|^formaction$/.test(a.name) || /script:/i.test(a.value))"
            ".map(a => e.tagName + ' ' + a.name))"
        )
        tags = set(tab.evaluate("[...document.body.querySelectorAll('*')].map(e => e.localName)"))
    context.close()
    assert acting == []
    assert tags <= SAFE_TAGS | {"header", "main", "nav", "section", "h1", "h2"}, tags - SAFE_TAGS
    assert (wrong, asked) == ([], [])


def test_what_was_planted_is_shown_as_text(report):
    page = report.read_text(encoding="utf-8")
    assert html.escape("<script>") in page
    assert not re.search(r"<(script|iframe|svg|object|form|link)\b", page)
