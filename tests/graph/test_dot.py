"""DOT and dagitty's text: what Graphviz and dagitty understand by it, or a refusal with the line."""

# ruff: noqa: E501 (the tables below hold a fault a line)

import pytest

from pyro_cama.errors import GraphError
from pyro_cama.graph.dot import read_dot


def edges(text: str) -> list[str]:
    return [str(edge) for edge in read_dot(text, "g.dot").edges]


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("digraph { a -> b -> c }", ["a --> b", "b --> c"]),
        ("digraph { a, b -> c, d }", ["a --> c", "a --> d", "b --> c", "b --> d"]),
        ("digraph { {a b} -> subgraph s { c; d -> e } }", ["d --> e", *(f"{x} --> {y}" for x in "ab" for y in "cde")]),
        ("strict digraph { a -> b; a -> b [dir=none] }", ["a --- b"]),
        ("digraph { a -> b; a -> b }", ["a --> b", "a --> b"]),
        ("graph { a -- b; a -- c [dir=forward] }", ["a --- b", "a --> c"]),
        ("digraph { edge [dir=back]; a -> b; { edge [dir=none]; a -> c } a -> d }", ["a <-- b", "a --- c", "a <-- d"]),
        ("digraph { a -> b [arrowtail=odot]; a -> c [dir=both, arrowtail=odot] }", ["a --> b", "a o-> c"]),
        ("digraph { a -> b [arrowhead=empty]; a -> c [arrowhead=none] }", ["a --> b", "a --- c"]),
        ("digraph { a -> b [dir=\"\", arrowhead=\"\"] }", ["a --> b"]),
        ('digraph { "a" + "b" -> -1.5; -1.5 -> .5 }', ["ab --> -1.5", "-1.5 --> .5"]),
        ('digraph { "a \\\\\nb" -> "c \\\nd\\"" }', ['a \\\\\nb --> c d"']),
        ('digraph { "node" -> "->" }', ["node --> ->"]),
        ("DIGRAPH g { a:s -> b:n:w }", ["a --> b"]),
        ("dag { a -> b <- c <-> d; e @-> f @-@ g @-- h -- i }", ["a --> b", "b <-- c", "c <-> d", "e o-> f", "f o-o g", "g o-- h", "h --- i"]),
        ("dag{x.1->y.2}", ["x.1 --> y.2"]),
    ],
)  # fmt: skip
def test_edges(text: str, read: list[str]) -> None:
    assert edges(text) == read


def test_defaults_hold_from_where_they_stand() -> None:
    text = """digraph { a; node [type=binary]; b; subgraph { node [type=count]; c; b; subgraph { d }
        node [type=image]; e } f; node [type=continuous]; g [type=count]; a; h }"""
    kinds = {name: keys.get("type") for name, keys in read_dot(text, "g.dot").nodes.items()}
    assert kinds == {
        "a": None, "b": "binary", "c": "count", "d": "count", "e": "image", "f": "binary", "g": "count", "h": "continuous",
    }  # fmt: skip


def test_labels_are_as_shown() -> None:
    text = r'digraph { node [label="\N"]; a; b [label="a \"b\" c\\d"]; c [label="two\nlines"]; d [label=<<b>d</b>>]; e, f [label=g] }'
    nodes = read_dot(text, "g.dot").nodes
    assert [nodes[name]["label"] for name in "abcdef"] == ["a", 'a "b" c\\d', "two\nlines", "", "g", "g"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("digraph {\n 2Fever }", "line 2: found 2Fever, to Graphviz two names; quote it, if it is one"),
        ("digraph { x.1 }", "found x.1, to Graphviz two names"),
        ("digraph { a:b -> c }", 'a:b, the node \'a\' at its port \'b\'; expected a name without ports: quote it, as in "a:b"'),
        ("digraph { <a> -> b }", "found a text in HTML as a name"),
        ("digraph { a [color] }", "found the key 'color' without '='"),
        ("digraph { node -> b }", "found 'node'; expected a name; quote it if it is one"),
        ("digraph { a -> b [dir=sideways] }", "found dir=sideways; expected forward, back, both or none"),
        ("digraph { a -> b [arrowhead=inv] }", "found an edge that ends in 'inv'; expected normal, none or odot"),
        ("digraph { a -> b } digraph { b -> c }", "found 'digraph' after the graph"),
        ("digraph { a -> b\n", "line 2: found 'the end'"),
        ('digraph { a -> "b }', "line 1: found"),
        ("digraph { a -> <b }", "line 1: found"),
        ("digraph " + "{" * 200, "nested too deeply"),
        ("digraph { a\x1f -> b }", "line 1: found"),
        ("digraph { a -> b, }", "found '}'; expected a name"),
        ("{ a -> b }", "found '{'; expected 'digraph' (or dagitty's 'dag')"),
        ("dag { a => b }", "is no valid dagitty text: line 1: found"),
    ],
)  # fmt: skip
def test_what_is_refused(text: str, says: str) -> None:
    with pytest.raises(GraphError) as caught:
        read_dot(text, "g.dot")
    assert says in str(caught.value)
