"""The site in a real browser: sorting, filtering, address, keyboard, dark mode, phone width, accessibility."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_board_model import golden, read_of, rows_of
from test_board_pages import EVIL, rich

from leaderboard.site import compare, write

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
ROOT = Path(__file__).parents[2]
PAGES = (
    "index.html", "board/quick.pde.html", "task/quick.toy.html", "task/quick.heat.html", "task/quick.add.html",
    "method/golu.html", "method/reference.html", "run/quick.toy.relu.html", "run/quick.toy.reference.html",
    "overall.html", "aggregates.html", "claims.html", "coverage.html", "failures.html", "changes.html",
)  # fmt: skip

pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium and chromedriver are not installed")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("board") / "site"
    rows = rich()
    rows[9]["message"] = rows[10]["message"] = EVIL
    write(read_of(rows), out)
    before = read_of([*golden(), *rows_of("toy", "elu", [1.0, 1.1, 1.3])])
    (out / "changes.html").write_bytes(compare(before, read_of(rows), ("old", "new"))[1])
    return out


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for word in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-extensions", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1440,1000",
    ):  # fmt: skip
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(executable_path=DRIVER)
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


@pytest.fixture(autouse=True)
def fresh(browser: Any, site: Path) -> None:
    """No stored theme, scripts on, a wide light window."""
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    visit(browser, site, "index.html")
    browser.execute_script("localStorage.clear()")
    browser.get("about:blank")
    browser.get_log("browser")
    browser.get_log("performance")


def load(browser: Any, go: Callable[[], None]) -> None:
    """Navigate, and wait for the new document: the driver may come back before its style and script are there."""
    from selenium.webdriver.support.wait import WebDriverWait

    browser.execute_script("window.left = true")
    go()
    WebDriverWait(browser, 60, 0.01).until(
        lambda b: b.execute_script("return !window.left && document.readyState === 'complete'")
    )


def visit(browser: Any, site: Path, page: str, state: str = "") -> None:
    browser.get("about:blank")  # a change of the hash alone would not load the page again
    load(browser, lambda: browser.get((site / page).as_uri() + (f"#{state}" if state else "")))


def column(browser: Any, table: str, key: str) -> list[str]:
    """Texts of a column's visible cells, first line each."""
    return browser.execute_script(
        """const table = document.getElementById(arguments[0]);
        const at = [...table.tHead.rows[0].cells].findIndex((c) => c.dataset.key === arguments[1]);
        return [...table.tBodies[0].rows].filter((r) => !r.hidden).map((r) => r.cells[at].innerText.trim().split("\\n")[0]);""",
        table, key,
    )  # fmt: skip


def press_header(browser: Any, table: str, key: str) -> str:
    """Press a header's sort button; its aria-sort afterwards."""
    return browser.execute_script(
        """const table = document.getElementById(arguments[0]);
        const head = [...table.tHead.rows[0].cells].find((c) => c.dataset.key === arguments[1]);
        head.querySelector("button").click();
        return head.getAttribute("aria-sort");""",
        table, key,
    )  # fmt: skip


def address(browser: Any) -> str:
    return browser.execute_script("return decodeURIComponent(location.hash)")


def test_no_page_has_a_console_error_or_a_request_beyond_its_files(browser: Any, site: Path) -> None:
    for page in PAGES:
        visit(browser, site, page)
        assert browser.get_log("browser") == [], page
        requests = [
            message["params"]["request"]["url"]
            for entry in browser.get_log("performance")
            if (message := json.loads(entry["message"])["message"])["method"] == "Network.requestWillBeSent"
        ]
        assert requests, page
        assert all(url.startswith((site.as_uri(), "data:", "about:blank")) for url in requests), page


def test_no_text_of_a_result_runs(browser: Any, site: Path) -> None:
    visit(browser, site, "failures.html")
    assert browser.execute_script("return document.scripts.length") == 1
    assert EVIL in browser.execute_script("return document.getElementById('t-failures').innerText")


def test_sorting_orders_the_rows_says_so_and_survives_a_reload(browser: Any, site: Path) -> None:
    visit(browser, site, "task/quick.toy.html")
    assert column(browser, "t-results", "method") == ["mish", "golu", "reference", "relu"]
    assert press_header(browser, "t-results", "score") == "descending"
    assert column(browser, "t-results", "method") == ["relu", "reference", "golu", "mish"]
    assert press_header(browser, "t-results", "score") == "ascending"
    assert press_header(browser, "t-results", "method") == "ascending"
    wanted = ["golu", "mish", "reference", "relu"]
    assert column(browser, "t-results", "method") == wanted
    assert "sort.t-results=method:up" in address(browser)
    load(browser, browser.refresh)
    assert column(browser, "t-results", "method") == wanted
    sorted_by = browser.execute_script(
        "return [...document.querySelectorAll('#t-results th[aria-sort]')].map(h => h.dataset.key)"
    )
    assert sorted_by == ["method"]


def test_numbers_sort_as_numbers_signs_included_and_gaps_come_last(browser: Any, site: Path) -> None:
    visit(browser, site, "index.html")
    table = "t-quick-activation"
    assert press_header(browser, table, "toy") == "descending"
    assert column(browser, table, "method") == ["mish", "golu", "reference", "relu"]
    assert press_header(browser, table, "heat") == "descending"
    assert column(browser, table, "method")[:2] == ["golu", "reference"]  # the others were not run on it
    assert press_header(browser, table, "heat") == "ascending"
    assert column(browser, table, "method")[:2] == ["reference", "golu"]


def test_small_print_does_not_run_into_the_number_that_is_sorted_by(browser: Any, site: Path) -> None:
    """relu's 2 seeds, with "1 of 3 diverged" below, are no 21."""
    visit(browser, site, "task/quick.toy.html")
    assert press_header(browser, "t-results", "n") == "descending"
    assert column(browser, "t-results", "n")[-1] == "2"
    assert column(browser, "t-results", "method")[-1] == "relu"


def test_the_address_of_another_view_takes_effect_in_an_open_page(browser: Any, site: Path) -> None:
    visit(browser, site, "index.html", "find=golu")
    browser.get((site / "index.html").as_uri() + "#find=mish")
    from selenium.webdriver.support.wait import WebDriverWait

    WebDriverWait(browser, 10).until(lambda b: column(b, "t-quick-activation", "method") == ["mish", "reference"])
    assert browser.find_element("id", "filter").get_attribute("value") == "mish"


def test_filtering_keeps_the_reference_and_survives_a_reload(browser: Any, site: Path) -> None:
    visit(browser, site, "index.html")
    browser.find_element("id", "filter").send_keys("GOLU")
    assert column(browser, "t-quick-activation", "method") == ["golu", "reference"]
    assert "find=GOLU" in address(browser)
    assert "rows" in browser.find_element("id", "shown").text
    load(browser, browser.refresh)
    assert browser.find_element("id", "filter").get_attribute("value") == "GOLU"
    assert column(browser, "t-quick-activation", "method") == ["golu", "reference"]
    assert browser.find_element("css selector", "details.tier").get_attribute("open")


def choose(browser: Any, label: str, value: str) -> None:
    """Pick a value of the selection named `label`."""
    browser.execute_script(
        """const label = [...document.querySelectorAll("#choices label")].find((e) => e.textContent.startsWith(arguments[0]));
        const select = label.querySelector("select");
        select.value = arguments[1];
        select.dispatchEvent(new Event("change"));""",
        label, value,
    )  # fmt: skip


def test_a_selection_filters_rows_and_survives_a_reload(browser: Any, site: Path) -> None:
    visit(browser, site, "overall.html")
    assert column(browser, "o-quick", "method") == ["mish", "golu", "relu", "lion"]
    choose(browser, "slot", "optimizer")
    assert column(browser, "o-quick", "method") == ["lion"]
    assert "only.slot=optimizer" in address(browser)
    load(browser, browser.refresh)
    assert column(browser, "o-quick", "method") == ["lion"]
    choose(browser, "slot", "")
    assert len(column(browser, "o-quick", "method")) == 4
    assert address(browser) == ""
    visit(browser, site, "overall.html", "only.slot=nothing")  # a value that no row has is none
    assert len(column(browser, "o-quick", "method")) == 4


def saved(browser: Any, table: str, kind: str) -> str:
    """What pressing a table's button CSV or JSON saves."""
    return browser.execute_async_script(
        """const [id, kind, done] = arguments;
        const made = URL.createObjectURL;
        URL.createObjectURL = (blob) => { blob.text().then(done); return made.call(URL, blob); };
        HTMLAnchorElement.prototype.click = function () {};
        const line = document.getElementById(id).closest(".scroll").nextElementSibling;
        [...line.querySelectorAll("button")].find((b) => b.textContent === kind).click();
        URL.createObjectURL = made;""",
        table, kind,
    )  # fmt: skip


def test_a_view_is_saved_as_it_is_shown(browser: Any, site: Path) -> None:
    """Rows and columns that are hidden are left out, numbers are plain, the order is the page's."""
    visit(browser, site, "task/quick.toy.html", "find=m&hide=cost,picture&sort.t-results=score:down")
    rows = list(csv.DictReader(io.StringIO(saved(browser, "t-results", "CSV"))))
    assert [r["method"] for r in rows] == ["reference", "mish"]  # the reference stays
    mish = rows[1]
    assert (float(mish["score"]), float(mish["gain"]), mish["n"]) == (0.7, 0.503, "3")
    assert (float(mish["gain 95% interval low"]), float(mish["gain 95% interval high"])) == (0.489, 0.518)
    assert "cost" not in mish
    assert mish["group"] == "1"
    from_json = json.loads(saved(browser, "t-results", "JSON"))
    assert [r["method"] for r in from_json] == ["reference", "mish"]
    assert from_json[1] == mish


def test_hidden_columns_survive_a_reload(browser: Any, site: Path) -> None:
    visit(browser, site, "index.html")
    boxes = {e.text: e for e in browser.find_elements("css selector", "#columns label")}
    assert {"PDE tasks", "vision tasks", "intervals", "ranks and ties"} <= set(boxes)
    boxes["PDE tasks"].find_element("tag name", "input").click()
    assert "hide=pde" in address(browser)
    shown = "return getComputedStyle(document.querySelector('#t-quick-activation th[data-key=heat]')).display"
    assert browser.execute_script(shown) == "none"
    load(browser, browser.refresh)
    assert browser.execute_script(shown) == "none"
    box = next(e for e in browser.find_elements("css selector", "#columns label") if e.text == "PDE tasks")
    assert not box.find_element("tag name", "input").is_selected()


def test_an_address_with_several_states_restores_all_of_them(browser: Any, site: Path) -> None:
    visit(browser, site, "index.html", "find=m&hide=pde,rank&sort.t-quick-activation=method:down&theme=dark")
    assert column(browser, "t-quick-activation", "method") == ["reference", "mish"]
    assert browser.execute_script("return document.documentElement.dataset.theme") == "dark"
    assert browser.find_element("id", "theme").text == "light mode"


@pytest.mark.parametrize(
    "state", ["sort.t-results=nothing:up", "sort.t-results=", "find=%E0%A4%A", "hide=%3Cscript%3E", "a&b==&&=", "golu"]
)
def test_a_damaged_address_breaks_nothing(browser: Any, site: Path, state: str) -> None:
    visit(browser, site, "task/quick.toy.html", state)
    assert len(browser.find_elements("css selector", "#t-results tbody tr")) == 4
    assert [e for e in browser.get_log("browser") if e["level"] == "SEVERE"] == []


def test_the_keyboard_reaches_sorts_and_skips(browser: Any, site: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    visit(browser, site, "task/quick.toy.html")
    body = browser.find_element("tag name", "body")
    body.send_keys(Keys.TAB)
    assert browser.switch_to.active_element.text == "Skip to the content"
    for _ in range(60):
        active = browser.switch_to.active_element
        if browser.execute_script("return arguments[0].closest('th')?.dataset.key", active) == "method":
            break
        active.send_keys(Keys.TAB)
    outline = browser.execute_script("return getComputedStyle(arguments[0]).outlineStyle", active)
    assert outline != "none"
    active.send_keys(Keys.ENTER)
    assert column(browser, "t-results", "method") == ["golu", "mish", "reference", "relu"]
    regions = browser.execute_script(
        "return [...document.querySelectorAll('.scroll')].every(e => e.tabIndex === 0 && e.ariaLabel)"
    )
    assert regions


def test_dark_mode_follows_the_system_and_the_button(browser: Any, site: Path) -> None:
    def paper() -> str:
        return browser.execute_script("return getComputedStyle(document.body).backgroundColor")

    visit(browser, site, "index.html")
    assert paper() == "rgb(255, 255, 255)"
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    load(browser, browser.refresh)
    assert paper() == "rgb(20, 23, 26)"
    browser.find_element("id", "theme").click()
    assert paper() == "rgb(255, 255, 255)"
    assert "theme=light" in address(browser)
    visit(browser, site, "coverage.html")  # the choice holds on the next page
    assert paper() == "rgb(255, 255, 255)"


def test_without_javascript_every_number_and_link_is_there(browser: Any, site: Path) -> None:
    visit(browser, site, "index.html")
    with_scripts = browser.execute_script("return document.querySelector('#t-quick-activation').innerText")
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    visit(browser, site, "index.html")
    without = browser.execute_script("return document.querySelector('#t-quick-activation').innerText")
    numbers = [re.findall(r"[\d.]+", text) for text in (with_scripts, without)]
    assert numbers[0] == numbers[1]
    assert "+0.503" in without
    for hidden in browser.find_elements("css selector", ".tools, #theme"):
        assert not hidden.is_displayed()  # no control that does nothing
    visit(browser, site, "method/golu.html")
    command = browser.find_element("css selector", "code.copy")
    assert command.text.startswith("levelfield run --tasks")
    assert command.value_of_css_property("user-select") == "all"


@pytest.mark.parametrize("width", [360, 390])
def test_a_phone_scrolls_tables_and_not_the_page(browser: Any, site: Path, width: int) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 800, "deviceScaleFactor": 2, "mobile": True}
    )
    for page in PAGES:
        visit(browser, site, page)
        found = browser.execute_script(
            """document.querySelectorAll("details").forEach((d) => { d.open = true; });
            return [document.documentElement.scrollWidth, innerWidth];"""
        )
        assert found == [width, width], page


def test_tables_are_as_wide_as_their_content(browser: Any, site: Path) -> None:
    visit(browser, site, "task/quick.toy.html")
    recipe, main = browser.execute_script(
        "return [[...document.querySelectorAll('.scroll')].find(e => e.ariaLabel === 'Reference recipe'), document.querySelector('main')]"
        ".map(e => e.getBoundingClientRect().width)"
    )
    assert recipe < 0.5 * main


def test_numeric_headers_stand_over_their_numbers(browser: Any, site: Path) -> None:
    visit(browser, site, "index.html")
    odd = browser.execute_script(
        """const odd = [];
        for (const table of document.querySelectorAll("table")) {
          [...table.tHead.rows[0].cells].forEach((head, i) => {
            const cell = [...table.tBodies[0].rows].map((r) => r.cells[i]).find((c) => c.classList.contains("num"));
            if (cell && getComputedStyle(head).textAlign !== "right") odd.push(table.id + ":" + head.innerText);
          });
        }
        return odd;"""
    )
    assert odd == []


def test_the_sort_button_of_a_linked_header_stands_beside_its_link(browser: Any, site: Path) -> None:
    visit(browser, site, "index.html")
    link, button = browser.execute_script(
        """const head = document.querySelector("#t-quick-activation th[data-key=toy]");
        return [head.querySelector("a"), head.querySelector("button")].map((e) => e.getBoundingClientRect().toJSON());"""
    )
    assert abs(link["top"] - button["top"]) < 6
    assert button["left"] >= link["right"]


def test_copying_a_command_takes_the_whole_of_it(browser: Any, site: Path) -> None:
    visit(browser, site, "method/golu.html")
    code = browser.find_element("css selector", "code.copy")
    button = browser.execute_script("return arguments[0].nextElementSibling", code)
    button.click()
    assert browser.execute_script("return getSelection().toString()").strip() == code.text
    assert button.text in ("copied", "press Ctrl-C")


@pytest.fixture(scope="module")
def axe() -> str:
    """axe-core's script: of LEVELFIELD_AXE, or from a node_modules folder of the project."""
    places = [Path(os.environ.get("LEVELFIELD_AXE") or "axe.min.js"), ROOT / "node_modules/axe-core/axe.min.js"]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        pytest.skip("axe-core is not here: `npm install axe-core` in the project, or LEVELFIELD_AXE=path/to/axe.min.js")
    return found.read_text()


@pytest.mark.parametrize(
    ("theme", "width"),
    [
        ("light", 390),
        pytest.param("dark", 1440, marks=pytest.mark.slow),
        pytest.param("light", 1440, marks=pytest.mark.slow),
        pytest.param("dark", 390, marks=pytest.mark.slow),
    ],
)
def test_axe_has_no_serious_finding(browser: Any, site: Path, axe: str, theme: str, width: int) -> None:
    browser.set_script_timeout(60)
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", scheme)
    for page in PAGES:
        visit(browser, site, page)
        browser.execute_script(
            """document.querySelectorAll("details").forEach((d) => { d.open = true; });
            document.querySelectorAll("tbody tr:nth-child(n+12)").forEach((row) => row.remove());  // more of the same"""
        )
        browser.execute_script(axe)
        found = browser.execute_async_script(
            "const done = arguments[arguments.length - 1]; axe.run(document, { resultTypes: ['violations'] }).then(done);"
        )
        serious = [
            (v["id"], v["nodes"][0]["html"][:160], v["nodes"][0].get("failureSummary", "")[:200])
            for v in found["violations"]
            if v["impact"] in ("serious", "critical")
        ]
        assert serious == [], page
