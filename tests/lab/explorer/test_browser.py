"""The page in a headless browser: upload, route, filter, counterfactual, heat map, map, keys; and without a server."""

import re

import pytest

from moebius.lab.explorer.row_query import RowQuery
from moebius.lab.explorer.server import Server


@pytest.fixture
def open_page(chromium):
    """Opens an address; at the end the page must not have complained, nor asked another machine."""
    pages, complaints, addresses = [], [], []

    def open_address(address, **options):
        page = chromium.new_context(viewport={"width": 1280, "height": 900}, **options).new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda message: complaints.append(message.text) if message.type != "log" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: addresses.append(request.url))
        page.goto(address)
        pages.append(page)
        return page

    yield open_address
    for page in pages:
        page.context.close()
    assert complaints == []
    assert [url for url in addresses if not re.match(r"http://127\.0\.0\.1:|file:|data:", url)] == []


@pytest.fixture(scope="module")
def server(pictures):
    with Server(pictures) as running:
        yield running


def test_a_row_is_found_opened_and_asked_what_each_expert_would_have_said(server, pictures, open_page):
    page = open_page(server.url)
    page.select_option("[name=answer]", "wrong")
    page.select_option("[name=order]", "largest regret")
    places = RowQuery(answer="wrong", order="largest regret").places(pictures.table)
    page.wait_for_selector(f"li:first-child > .card[data-row='{places[0]}']")
    assert page.inner_text(".matches") == f"{len(places)} of 150 rows"
    page.click(".card >> nth=0")
    page.wait_for_selector(".why")
    assert page.inner_text("#row h2") == f"row:{places[0]}"
    assert page.locator(".badge").inner_text() == "wrong"
    assert page.locator(".changed:visible").count() == 0
    page.click(".had >> nth=1")
    expert = page.locator(".had >> nth=1").get_attribute("data-expert")
    assert (
        page.locator(".changed:visible").inner_text().startswith(f"Had expert {expert} answered alone, the model would")
    )
    page.click(".had >> nth=1")
    assert page.locator(".changed:visible").count() == 0
    page.click("text=all rows")
    page.wait_for_selector(".matches:text-is('150 of 150 rows')")
    page.click("text=later")
    page.wait_for_selector("li:first-child > .card[data-row='60']")


def test_a_picture_is_uploaded_and_dropped(server, open_page, png):
    page = open_page(server.url)
    page.click("#tab-ask")
    page.set_input_files("[name=picture]", {"name": "mine.png", "mimeType": "image/png", "buffer": png([[9] * 8] * 8)})
    page.wait_for_selector(".why")
    assert page.inner_text("#row h2") == "mine.png"
    assert page.locator(".said tbody tr").count() == 4
    assert page.evaluate("document.querySelector('.big').naturalWidth") == 8
    content = list(png([[200] * 20] * 20))
    transfer = page.evaluate_handle(
        "bytes => { const data = new DataTransfer();"
        "data.items.add(new File([new Uint8Array(bytes)], 'dropped.png', {type: 'image/png'})); return data; }",
        content,
    )
    page.dispatch_event("main", "drop", {"dataTransfer": transfer})
    page.wait_for_selector("#row h2:text-is('dropped.png')")


def test_a_cell_and_a_point_open_rows(server, pictures, open_page):
    page = open_page(server.url)
    page.click("#tab-groups")
    cell = page.locator(".heat button").nth(4)
    count = int(re.search(r"(\d+) rows", cell.get_attribute("aria-label"))[1])
    cell.click()
    page.wait_for_selector(f".matches:text-is('{count} of 150 rows')")
    places = RowQuery(group=1, expert=1).places(pictures.table)
    assert [int(card.get_attribute("data-row")) for card in page.locator(".card").all()] == places[:60].tolist()
    page.click("#tab-map")
    point = page.locator(".map circle").nth(17)
    row = point.get_attribute("data-row")
    point.dispatch_event("click")
    page.wait_for_selector(f"#row h2:text-is('row:{row}')")


def test_keys_move_between_tabs_and_rows(server, open_page):
    page = open_page(server.url)
    page.focus("#tab-rows")
    page.keyboard.press("ArrowRight")
    assert page.locator("#panel-groups").is_visible()
    page.keyboard.press("ArrowLeft")
    page.focus(".card >> nth=0")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_selector("#row h2:text-is('row:1')")


def test_a_phone_shows_the_row_that_is_opened(server, open_page):
    page = open_page(server.url)
    page.set_viewport_size({"width": 390, "height": 800})
    page.click(".card >> nth=3")
    page.wait_for_selector(".why")
    for _ in range(50):
        if 0 <= page.evaluate("document.querySelector('#row').getBoundingClientRect().top") < 400:
            break
        page.wait_for_timeout(100)
    else:
        pytest.fail("the row is not in sight")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_gates_are_chosen(nested, open_page):
    with Server(nested) as server:
        page = open_page(server.url)
        assert page.locator(".experts tbody tr").count() == 3
        with page.expect_navigation():
            page.select_option("#gate", "experts.0.gate")
        assert page.locator(".experts tbody tr").count() == 2
        page.select_option("[name=expert]", "1")
        places = RowQuery(gate="experts.0.gate", expert=1).places(nested.table)
        page.wait_for_selector(f".matches:text-is('{len(places)} of 90 rows')")
        page.close()


def test_a_row_of_a_table_is_changed_and_asked_again(table, open_page):
    with Server(table) as server:
        page = open_page(server.url)
        page.click(".card >> nth=0")
        page.click("[data-fill]")
        assert page.input_value("[name='column color']") in ("red", "blue")
        page.fill("[name='column size']", "2.5")
        page.click("#ask button")
        page.wait_for_selector("#row h2:text-is('your row')")
        page.close()


def test_the_export_opens_from_a_file(nested, pictures, open_page, tmp_path):
    index = pictures.export(tmp_path / "page", rows=80)
    page = open_page(index.as_uri())
    assert page.locator(".card").count() == 60
    page.select_option("[name=answer]", "wrong")
    page.select_option("[name=order]", "largest loss")
    rows = [card.get_attribute("data-row") for card in page.locator(".card").all()]
    shown = pictures.table.frame.set_index("row")["loss"]
    assert [int(row) for row in rows] == sorted(map(int, rows), key=lambda row: -shown[row])
    page.click(".card >> nth=0")
    assert page.inner_text("#row h2") == f"row:{rows[0]}"
    assert page.evaluate("document.querySelector('.big').naturalWidth") == 8
    page.click(".had >> nth=0")
    assert "answered alone" in page.locator(".changed:visible").inner_text()
    page.click("#tab-groups")
    page.click(".heat button >> nth=0")
    assert page.locator(".card").count() == int(page.inner_text(".matches").split()[0])
    page = open_page(nested.export(tmp_path / "nested").as_uri())
    page.select_option("#gate", "experts.0.gate")
    page.select_option("[name=expert]", "1")
    places = RowQuery(gate="experts.0.gate", expert=1).places(nested.table)
    assert page.inner_text(".matches") == f"{len(places)} of 90 rows"
