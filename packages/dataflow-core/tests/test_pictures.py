"""Pictures of workflows: well formed, deterministic, and laid out so that nothing covers anything else."""

import re
import time
from itertools import combinations, pairwise
from typing import Annotated
from xml.etree import ElementTree as ET

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow import DataFlow, ForeignKey, Relation, notebook
from dataflow.pictures import models
from dataflow.pictures.workflows import PictureEdge, PictureNode, to_mermaid, to_svg

SVG = "{http://www.w3.org/2000/svg}"
NASTY = [
    "end",
    'a"b',
    "[x]",
    "a|b",
    "`code`",
    "#35;",
    "<b>&amp;",
    "1. list",
    "__init__",
    "two\nlines",
    "日本語",
    "\x00😀\ufffe",
]
DIAMOND = [("a", "id", "b", "a_id"), ("a", "id", "c", "a_id"), ("b", "x", "d", "left"), ("c", "x", "d", "right")]


@attrs.frozen
class Box:
    """A rectangle of the picture, with the node's title if it has one."""

    title: str
    left: float
    top: float
    width: float
    height: float

    def overlaps(self, other: "Box") -> bool:
        """Tell whether the two share more than a border."""
        apart = (
            self.left + self.width <= other.left
            or other.left + other.width <= self.left
            or self.top + self.height <= other.top
            or other.top + other.height <= self.top
        )
        return not apart


def nodes_of(*ids: str) -> list[PictureNode]:
    return [PictureNode(name, f"{name.title()}Node") for name in ids]


def edges_of(*edges: tuple[str, str, str, str]) -> list[PictureEdge]:
    return [PictureEdge(*edge) for edge in edges]


def boxes_of(svg: str, role: str) -> list[Box]:
    root = ET.fromstring(svg)
    found = []
    for parent in root.iter():
        for rect in parent.findall(f"{SVG}rect[@class='{role}']"):
            sizes = (float(rect.attrib[name]) for name in ("x", "y", "width", "height"))
            found.append(Box(parent.findtext(f"{SVG}title", ""), *sizes))
    return found


def texts_of(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter(f"{SVG}text")]


@st.composite
def pictures(draw: st.DrawFn, *, cycles: bool = False) -> tuple[list[PictureNode], list[PictureEdge]]:
    total = draw(st.integers(0, 14))
    names = st.text(max_size=12) | st.sampled_from(NASTY)
    states = st.sampled_from([None, "done", "failed", "skipped", "running", "pending"])
    nodes = [
        PictureNode(f"{index} {draw(names)}", draw(names), draw(st.just("") | names), draw(states))
        for index in range(total)
    ]
    pairs = list(combinations(range(total), 2))
    chosen = draw(st.lists(st.sampled_from(pairs), max_size=20)) if pairs else []
    edges = []
    for source, target in chosen:
        ends = (target, source) if cycles and draw(st.booleans()) else (source, target)
        edges.append(PictureEdge(nodes[ends[0]].id, draw(names), nodes[ends[1]].id, draw(names)))
    return nodes, edges


# --- SVG ---


@settings(max_examples=150, deadline=None)
@given(pictures(cycles=True))
def test_any_workflow_gives_a_well_formed_picture_without_overlaps(picture):
    svg = to_svg(*picture)
    boxes, labels = boxes_of(svg, "node"), boxes_of(svg, "label")
    assert len(boxes) == len(picture[0])
    assert [pair for pair in combinations(boxes, 2) if pair[0].overlaps(pair[1])] == []
    assert [pair for pair in combinations(labels, 2) if pair[0].overlaps(pair[1])] == []
    assert [(box, label) for box in boxes for label in labels if box.overlaps(label)] == []
    left, top, width, height = map(float, ET.fromstring(svg).attrib["viewBox"].split())
    canvas = Box("", left, top, width, height)
    for box in (*boxes, *labels):
        assert canvas.left <= box.left <= box.left + box.width <= canvas.left + canvas.width
        assert canvas.top <= box.top <= box.top + box.height <= canvas.top + canvas.height


@settings(max_examples=100, deadline=None)
@given(pictures())
def test_a_node_stands_below_all_that_it_takes_input_from(picture):
    nodes, edges = picture
    boxes = dict(zip((node.id for node in nodes), boxes_of(to_svg(nodes, edges), "node"), strict=True))
    for edge in edges:
        source, target = boxes[edge.source], boxes[edge.target]
        assert source.top + source.height < target.top


@settings(max_examples=50, deadline=None)
@given(pictures(cycles=True))
def test_the_same_workflow_gives_the_same_text(picture):
    nodes, edges = picture
    again = [attrs.evolve(node) for node in nodes], [attrs.evolve(edge) for edge in edges]
    assert to_svg(nodes, edges) == to_svg(*again)
    assert to_mermaid(nodes, edges) == to_mermaid(*again)


def test_ids_types_and_details_are_shown_and_escaped():
    svg = to_svg([PictureNode('<a & "b">', "T<x>", "3 rows", "failed")], [])
    assert texts_of(svg)[:3] == ['<a & "b">', "T<x>", "3 rows"]
    assert boxes_of(svg, "node")[0].title == '<a & "b"> · T<x> · 3 rows · failed'


def test_a_picture_without_nodes_says_so():
    assert texts_of(to_svg([], [])) == ["no nodes"]
    assert to_mermaid([], []) == "flowchart TD\n"


def test_the_picture_has_a_title_for_those_who_cannot_see_it():
    svg = to_svg(nodes_of("a", "b"), [])
    assert ET.fromstring(svg).findtext(f"{SVG}title") == "Workflow with 2 nodes: a, b"


def test_unconnected_nodes_keep_their_order_in_lines():
    boxes = boxes_of(to_svg(nodes_of(*"abcdefghij"), []), "node")
    assert boxes == sorted(boxes, key=lambda box: (box.top, box.left))
    assert len({box.top for box in boxes}) > 1


def test_a_diamond_is_symmetric():
    top, left, right, bottom = boxes_of(to_svg(nodes_of(*"abcd"), edges_of(*DIAMOND)), "node")
    assert top.left == bottom.left == pytest.approx((left.left + right.left) / 2, abs=0.1)
    assert left.top == right.top


def test_a_long_link_does_not_run_through_a_box():
    edges = edges_of(("a", "id", "b", "x"), ("b", "id", "c", "x"), ("a", "id", "c", "y"))
    svg = to_svg(nodes_of("a", "b", "c"), edges)
    box = boxes_of(svg, "node")[1]
    curves = [path.attrib["d"] for path in ET.fromstring(svg).iter(f"{SVG}path") if path.get("fill") == "none"]
    xs = [float(x) for curve in curves for x in re.findall(r"L([-\d.]+) ", curve)]
    assert len(xs) == 1
    assert not box.left <= xs[0] <= box.left + box.width


@pytest.mark.parametrize(
    ("output", "input_", "label"),
    [
        ("result", "input", []),
        ("id", "customer_id", ["id → customer_id"]),
        ("rows", "rows", ["rows"]),
        ("records", "input", ["records → input"]),
    ],
)
def test_a_label_says_no_more_than_needed(output, input_, label):
    svg = to_svg(nodes_of("a", "b"), edges_of(("a", output, "b", input_)))
    assert [text for text in texts_of(svg) if text not in ("a", "b", "ANode", "BNode")] == label


def test_connections_of_the_same_two_nodes_share_an_arrow():
    edges = edges_of(*(("a", f"out{n}", "b", f"in{n}") for n in range(6)))
    svg = to_svg(nodes_of("a", "b"), edges)
    assert len(boxes_of(svg, "label")) == 1
    assert "3 more" in texts_of(svg)


def test_a_legend_stands_only_where_states_are():
    assert boxes_of(to_svg(nodes_of("a"), []), "legend") == []
    svg = to_svg([PictureNode("a", "T", state="skipped"), PictureNode("b", "T", state="done")], [])
    assert len(boxes_of(svg, "legend")) == 2
    assert texts_of(svg)[-2:] == ["done", "skipped"]


def test_an_unknown_state_is_refused():
    with pytest.raises(ValueError, match="state"):
        PictureNode("a", "T", state="finished")  # type: ignore[arg-type]


def test_edges_to_nodes_outside_the_picture_and_to_oneself_do_no_harm():
    nodes, edges = nodes_of("a"), edges_of(("a", "x", "gone", "y"), ("gone", "x", "a", "y"), ("a", "x", "a", "y"))
    assert len(boxes_of(to_svg(nodes, edges), "node")) == 1
    assert "gone" not in to_mermaid(nodes, edges)


def chain(length: int) -> tuple[list[PictureNode], list[PictureEdge]]:
    names = [f"n{index}" for index in range(length)]
    return nodes_of(*names), edges_of(*((a, "id", b, "x") for a, b in pairwise(names)))


@pytest.mark.parametrize("shape", ["chain", "star", "chain with long links", "unconnected"])
def test_a_thousand_nodes_are_drawn_within_seconds(shape):
    nodes, edges = chain(1000)
    star = [PictureEdge("n0", "id", node.id, "y") for node in nodes[2:]]
    chosen = {"chain": edges, "star": star, "chain with long links": edges + star, "unconnected": []}
    started = time.process_time()
    svg = to_svg(nodes, chosen[shape])
    assert time.process_time() - started < 6
    assert len(boxes_of(svg, "node")) == 1000


# --- Mermaid ---


def test_mermaid_shows_nodes_connections_and_states():
    nodes = [
        PictureNode("create_user", "UserCreateNode", "1 row", "done"),
        PictureNode("mail", "MailNode", state="failed"),
    ]
    edges = edges_of(("create_user", "id", "mail", "user_id"), ("create_user", "result", "mail", "input"))
    assert to_mermaid(nodes, edges).splitlines() == [
        "flowchart TD",
        '    n0["create_user<br/>UserCreateNode<br/>1 row"]',
        '    n1["mail<br/>MailNode"]',
        '    n0 -->|"id → user_id"| n1',
        "    n0 --> n1",
        "    classDef done fill:#dcf2e0,stroke:#2e8b3d,color:#1b1f24",
        "    class n0 done",
        "    classDef failed fill:#fcdfdc,stroke:#d0342c,color:#1b1f24",
        "    class n1 failed",
    ]


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("end", "end"),
        ('a"b', "a#34;b"),
        ("a|b", "a#124;b"),
        ("`x`", "#96;x#96;"),
        ("#35;", "#35;35#59;"),
        ("<b>", "#60;b#62;"),
        ("1. list", "1#46; list"),
        ("- item", "#45; item"),
        ("__init__", "#95;#95;init#95;#95;"),
        ("a_b-c", "a_b-c"),
        ("two\n lines", "two lines"),
        ("日本語", "日本語"),
        ("", " "),
    ],
)
def test_no_text_can_break_out_of_a_mermaid_label(text, written):
    assert to_mermaid([PictureNode(text, "")], []) == f'flowchart TD\n    n0["{written}"]\n'


@settings(max_examples=150, deadline=None)
@given(pictures(cycles=True))
def test_every_mermaid_line_has_one_of_the_known_shapes(picture):
    label = r"(?:[\w -]|#\d+;|<br/>|→)+"
    known = re.compile(
        rf'    (?:n\d+\["{label}"\]|n\d+ -->(?:\|"{label}"\|)? n\d+|class n\d+(?:,n\d+)* \w+|classDef \w+ [\w:#, -]+)'
    )
    first, *rest = to_mermaid(*picture).removesuffix("\n").split("\n")
    assert first == "flowchart TD"
    assert [line for line in rest if not known.fullmatch(line)] == []


# -- models -----------------------------------------------------------------------------------------------------------
@pytest.fixture
def shop():
    with DataFlow(":memory:") as db:

        @db.model
        class Customer:
            name: str
            referrer_id: Annotated[int | None, Relation("Customer", name="referrer", reverse="referred")]
            __dataflow__ = {"timestamps": False}  # noqa: RUF012

        @db.model
        class Profile:
            customer_id: Annotated[int, ForeignKey("Customer")]
            __indexes__ = [{"name": "uq_profile", "fields": ["customer_id"], "unique": True}]  # noqa: RUF012
            __dataflow__ = {"timestamps": False}  # noqa: RUF012

        @db.model
        class Order:
            customer_id: int | None
            total: float
            __dataflow__ = {"timestamps": False}  # noqa: RUF012

        yield db


def test_mermaid_shows_models_fields_and_relations(shop):
    assert shop.to_mermaid().splitlines() == [
        "erDiagram",
        '    "Customer" {',
        "        int id PK",
        "        str name",
        "        int referrer_id FK",
        "    }",
        '    "Profile" {',
        "        int id PK",
        "        int customer_id FK",
        "    }",
        '    "Order" {',
        "        int id PK",
        "        int customer_id FK",
        "        float total",
        "    }",
        '    "Customer" |o..o{ "Customer" : "referrer / referred"',
        '    "Customer" ||--o| "Profile" : "customer / profiles"',
        '    "Customer" |o..o{ "Order" : "customer / orders"',
    ]


def test_the_picture_of_models_is_well_formed_and_boxes_do_not_overlap(shop):
    drawn = ET.fromstring(shop.to_svg())
    boxes = [box for box in drawn.iter(f"{SVG}rect") if box.get("class") == "model"]
    assert len(boxes) == 3
    assert shop._repr_html_() == shop.to_svg()
    texts = ["".join(text.itertext()) for text in drawn.iter(f"{SVG}text")]
    assert "int? → Customer" in texts  # no line shows that
    assert texts.count("customer / orders") == 1
    dashed = [path for path in drawn.iter(f"{SVG}path") if path.get("stroke-dasharray")]
    assert len(dashed) == 1  # the relation without a constraint


def test_every_model_and_field_is_in_the_picture_up_to_forty_fields():
    fields = tuple(models.PictureField(f"f{number}", "str") for number in range(50))
    picture = models.to_svg([models.PictureModel("Wide", "wides", fields)], [])
    assert ">f38<" in picture
    assert ">f39<" not in picture
    assert ">… 11 more<" in picture


def test_a_picture_without_models_says_so():
    with DataFlow(":memory:") as db:
        assert "no models" in db.to_svg()
        assert db.to_mermaid() == "erDiagram\n"


@pytest.mark.parametrize("nasty", NASTY)
def test_no_name_can_break_out_of_a_picture_of_models(nasty):
    model = models.PictureModel(nasty, nasty, (models.PictureField(nasty, nasty, itself=True),))
    relation = models.PictureRelation(nasty, nasty, (nasty,))
    ET.fromstring(models.to_svg([model], [relation]))
    first, second, field, end, last = models.to_mermaid([model], [relation]).splitlines()
    assert (first, end) == ("erDiagram", "    }")
    assert re.fullmatch(r'    "(?:[\w -]|#\d+;)*" \{', second)
    assert re.fullmatch(r"        [A-Za-z][\w\[\]()-]* [A-Za-z][\w\[\]()-]*", field, re.ASCII)
    assert re.fullmatch(r'    "(?:[\w -]|#\d+;)*" \|\|\.\.o\{ "(?:[\w -]|#\d+;)*" : "(?:[\w -]|#\d+;)*"', last)


def test_the_table_of_a_result_escapes_shortens_and_names_what_is_left_out():
    rows = [{"id": number, "about": {"name": "<b>"}, "photo": b"abc", "none": None} for number in range(22)]
    shown = notebook.result_html({"records": rows, "count": 22, "total": None})
    assert shown.count("<td style='text-align:left'>name: &lt;b&gt;</td>") == 20
    assert "3 bytes" in shown
    assert "<i>NULL</i>" in shown
    assert "… 2 more" in shown
    assert shown.endswith("<div>count: 22</div>")
    assert notebook.result_html({"count": 22}) is None
    assert notebook.model_html(int) is None
