"""The dashboard in a real browser: at every width, light and dark, with and without scripts, judged by axe.

`STOCKLEDGER_TEST_PICTURES=FOLDER` keeps a picture of each screen (`python -m tools.pictures`).
"""

import os
import shutil
from pathlib import Path
from urllib.parse import urlencode

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright

from tests.support.doorstep import gateway
from tests.support.showcase import GOODS, MARKUP, TOLD_ONCE
from tests.support.workers import PATIENCE_S

pytestmark = pytest.mark.slow
WIDTHS = [390, 1280, 1920]
JUDGED = {"light": 1280, "dark": 390}
"""At which width axe looks at what."""
HEIGHT = 900
TIMEOUT_MS = PATIENCE_S * 1000
GRAVE = {"serious", "critical"}
SCREENS = {
    "overview": "",
    "found": "find?q=order-4",
    "not-found": "find?q=order-43x",
    "command": f"command?id={TOLD_ONCE}",
    "deliveries": f"command?id={TOLD_ONCE}&deliveries=every",
    "user": "user?id=17850",
    "items": "items",
    "item": "item?id=tea",
    "item-in-the-past": "item?id=tea&version=12",
    "item-of-markup": f"item?{urlencode({'id': MARKUP})}",
    "item-from-right-to-left": f"item?{urlencode({'id': GOODS[4]})}",
    "item-that-is-long": f"item?{urlencode({'id': 'W' * 64})}",
    "lanes": "lanes",
    "projections": "projections",
    "dead-letters": "dead-letters",
    "redrive": "redrive",
    "settings": "settings",
    "sign-in": "sign-in",
    "refusal": "nothing",
}


@pytest.fixture(scope="module")
def browser():
    """The chromium of this machine."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if not found:
        pytest.skip("no chromium is installed")
    with (
        sync_playwright() as driver,
        driver.chromium.launch(executable_path=found, args=["--no-sandbox"]) as started,
    ):
        yield started


@pytest.fixture(scope="module")
def door(showcase):
    """A gateway of the ledger in which everything has happened; `production` stands on each page."""
    with gateway(showcase, environment="production") as client:
        yield client


@pytest.fixture(scope="module")
def screens(door):
    """Each screen's address; of dead letters, the one with bytes that are no text, too."""
    return {name: f"{door.address}/ui/{at}" for name, at in SCREENS.items()}


@pytest.fixture
def opened(browser):
    """`opened(scheme, scripts)`: a page in a context of its own, which nothing may go wrong in."""
    made, faults = [], []

    def open_page(scheme="light", scripts=True):
        context = browser.new_context(color_scheme=scheme, java_script_enabled=scripts)
        context.set_default_timeout(TIMEOUT_MS)
        made.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("dialog", lambda dialog: faults.append(dialog.message))
        page.on("console", lambda said: faults.append(said.text) if "Content Security" in said.text else None)
        return page

    yield open_page
    for context in made:
        context.close()
    assert faults == []


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "none"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_screen_at_every_width(opened, screens, scheme, scripts):
    """Nothing is wider than the window, axe finds nothing grave, and each has what it is for."""
    page, found = opened(scheme, scripts), []
    for name, address in screens.items():
        page.goto(address)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": HEIGHT})
            wide = page.evaluate("document.documentElement.scrollWidth")
            if wide > width:
                found.append(f"{name} at {width}: {wide} wide")
            if scripts and width == JUDGED[scheme]:
                found += [f"{name} at {width}: {each}" for each in grave(page)]
            picture(page, f"{name}-{width}-{scheme}", scripts)
    assert found == []


def test_the_overview_moves_unless_it_is_paused(opened, door):
    """A new purchase is seen without a reload, and nothing moves once it is paused."""
    page = opened()
    page.goto(f"{door.address}/ui/")
    page.get_by_text("renewed every 2 s").wait_for()
    seen = page.locator("#live time").first.text_content()
    expect(page.locator("#live time").first).not_to_have_text(seen, timeout=TIMEOUT_MS)
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Go on").wait_for()
    assert page.get_by_role("status").text_content() == "paused"


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "none"])
def test_three_clicks_and_the_slider_by_keyboard(opened, door, scripts):
    """From the customer's id to his order's repeats, and to an item's past, without a mouse."""
    page = opened(scripts=scripts)
    page.goto(f"{door.address}/ui/")
    page.get_by_role("searchbox").fill("17850")
    page.keyboard.press("Enter")
    page.get_by_role("link", name=TOLD_ONCE, exact=True).press("Enter")
    page.get_by_role("link", name="Find every delivery").press("Enter")
    page.get_by_text("1 applied, 2 repeats that changed nothing.").wait_for()
    page.get_by_role("link", name="tea").first.press("Enter")
    slider = page.get_by_role("slider")
    last = slider.input_value()
    slider.press("ArrowLeft")
    slider.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_text(f"As of version {int(last) - 1}", exact=True).wait_for()


def test_ids_that_are_paths_for_others(opened, door):
    """`..` and a slash are ids: a browser follows the links to them, and back."""
    page = opened()
    for name in GOODS:
        page.goto(f"{door.address}/ui/items")
        page.get_by_role("link", name=name, exact=True).click()
        assert page.get_by_role("heading", level=1).text_content() == name


def grave(page):
    """What axe holds to be serious or critical."""
    return [
        f"{each['id']}: {each['help']}: {each['nodes'][0]['html'][:200]}"
        for each in Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
        if each["impact"] in GRAVE
    ]


def picture(page, name, scripts):
    folder = os.environ.get("STOCKLEDGER_TEST_PICTURES")
    if folder and scripts:
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)
