"""How fast the drawing page is: from the request until the model is ready, and from a stroke's step
until the bars show the answer. In headless Chromium, from a server on this computer.

    make docs && python benchmarks/draw_page.py

Each of ten trials is a browser of its own, with nothing in its cache.
"""

import platform
import shutil
import statistics
import sys
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "tests"))
from browsing import served  # noqa: E402

SITE = ROOT / "_docs" / "html"
N_TRIALS = 10

# Times are the browser's own: of the event that moved the pen, and of the change of the answer.
CLOCK = """
window.times = { ready: null, answers: [] };
document.addEventListener("DOMContentLoaded", () => {
  const page = document.getElementById("draw");
  new MutationObserver(() => { times.ready ??= performance.now(); })
    .observe(page, { attributes: true, attributeFilter: ["data-state"] });
  let moved = null;
  const canvas = document.getElementById("draw-canvas");
  canvas.addEventListener("pointermove", (event) => { moved ??= event.timeStamp; });
  new MutationObserver(() => {
    if (moved !== null) times.answers.push(performance.now() - moved);
    moved = null;
  }).observe(document.getElementById("draw-bars"), { subtree: true, attributeFilter: ["style"] });
});
"""


def trial(browser: Browser, address: str) -> tuple[float, list[float]]:  # ms, ms each
    "Load the page, draw a zigzag, and read the clock."
    page = browser.new_page()
    page.add_init_script(CLOCK)
    page.goto(address)
    page.wait_for_selector("#draw[data-state=ready]")
    box = page.locator("#draw-canvas").bounding_box()
    if box is None:
        raise SystemExit("The drawing area is not on the page.")
    page.mouse.move(box["x"] + 60, box["y"] + 40)
    page.mouse.down()
    for step in range(1, 21):
        page.mouse.move(box["x"] + 60 + 150 * (step % 2), box["y"] + 40 + 10 * step)
        page.evaluate("new Promise((done) => setTimeout(done, 50))")  # a hand's pace
    page.mouse.up()
    times = page.evaluate("times")
    page.close()
    return times["ready"], times["answers"]


def row(name: str, values: list[float]) -> str:
    low, high = min(values), max(values)
    median = statistics.median(values)
    return f"{name:34} {median:7.0f} ms  ({low:.0f} to {high:.0f}, n = {len(values)})"


def main() -> int:
    chromium = shutil.which("chromium")
    if chromium is None or not (SITE / "draw.html").exists():
        print("This takes Chromium (apt-get install chromium) and the site (make docs).")
        return 2
    loads, firsts, answers = [], [], []
    with served(SITE) as site:
        address = f"{site}draw.html"
        with sync_playwright() as playwright:
            for _ in range(N_TRIALS):
                flags = ["--no-sandbox", "--disable-gpu"]
                browser = playwright.chromium.launch(executable_path=chromium, args=flags)
                ready, steps = trial(browser, address)
                browser.close()
                loads.append(ready)
                firsts.append(steps[0])
                answers.append(statistics.median(steps))
    print(f"{platform.machine()}, median of {N_TRIALS} trials (lowest to highest)")
    print(row("load until ready", loads))
    print(row("answer to a step, a trial's median", answers))
    print(row("answer to the first step", firsts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
