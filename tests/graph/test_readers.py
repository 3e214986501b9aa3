"""GML, GraphML, TETRAD's text and files of Bayesian networks: what they refuse, and in which words."""

# ruff: noqa: E501 (the tables below hold a fault a line)

from pathlib import Path

import pytest

from pyro_cama.errors import GraphError
from pyro_cama.graph.drawn import Drawn
from pyro_cama.graph.formats import read_file

ML = '<graphml xmlns="http://graphml.graphdrawing.org/xmlns">{}</graphml>'
BIF = "network n {{ }} variable a {{ type discrete [ 2 ] {{ no, yes }}; }} {}"


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("g.gml", "graph [ directed 1 ] graph [ ]", "found 2 graphs; expected one, graph [ ... ]"),
        ("g.gml", "graph [ node [ label \"a\" ] ]", "found a node with id None"),
        ("g.gml", "graph [ node [ id 1 ] edge [ source 1 target 2 ] ]", "an edge with the ends '1', '2'; expected ids of nodes"),
        ("g.gml", "graph [ node [ id 1 isGroup 1 ] node [ id 2 ] edge [ source 1 target 2 ] ]", "not of a group"),
        ("g.gml", "graph\n[ node [ id 1 label broken ] ]", "line 2: found 'broken ] ]'; expected a number, a text in quotes"),
        ("g.gml", "graph [ ] ]", "found ']'; expected no more than were opened"),
        ("g.gml", "graph [ node ]", "expected a value of node"),
        ("g.gml", "a [ " * 200, "is nested too deeply"),
        ("g.gml", 'graph [ node [ id 1 ] node [ id 2 ] edge [ source 1 target 2 graphics [ arrow "middle" ] ] ]', "arrow 'middle'; expected none, first"),
        ("g.gml", 'Creator "yFiles" graph [ node [ id 1 ] node [ id 2 ] edge [ source 1 target 2 graphics [ targetArrow "a" targetArrow "b" ] ] ]', "ends in ['a', 'b']; expected none, standard"),
        ("g.graphml", ML.format(""), "found 0 graphs; expected one"),
        ("g.graphml", ML.format('<graph edgedefault="directed"><node/></graph>'), "found a node with id None"),
        ("g.graphml", ML.format('<graph edgedefault="directed"><node id="a"/><edge source="a" target="b"/></graph>'), "the end 'b', no node"),
        ("g.graphml", ML.format('<key id="d" for="node" attr.name="dim" attr.type="int"/><graph><node id="a"><data key="d">x</data></node></graph>'), "dim: found 'x'; expected a number"),
        ("g.graphml", ML.format('<graph><node id="a"><data key="k">1</data><data key="k">2</data></node></graph>'), "found 'k' twice"),
        ("g.graphml", "<gexf/>", "found the element <gexf>; expected <graphml>"),
        ("g.txt", "Graph Nodes:\na;b\n\nGraph Edges:\n1. a --> c\n", "line 5: found '1. a --> c'; expected an edge of the nodes"),
        ("g.bif", BIF.format("probability ( b ) { }"), "probabilities of 'b': found 'b', no variable"),
        ("g.bif", BIF.format("probability ( a | b ) { }"), "probabilities of 'a': found 'b', no variable"),
        ("g.bif", BIF.format("probability ( a ) { } probability ( a ) { }"), "found probabilities of 'a' twice"),
        ("g.bif", BIF.format("variable a { type discrete [ 2 ] { x, y }; }"), "found variable 'a' twice"),
        ("g.bif", "variable a { type discrete [ 3 ] { x, y }; }", "found 2 levels, 'x', 'y'; expected 3"),
        ("g.bif", "variable a { type continuous [ 3 ] { x, y }; }", "found type 'continuous'; expected discrete"),
        ("g.bif", "variable a { }", "found a variable without type"),
        ("g.bif", BIF.format("probability ( a ) { ("), "found its end; expected '}' before"),
        ("g.net", "node a { label = ; states = (x y); } potential (b) { }", "probabilities of 'b': found 'b', no variable"),
        ("g.net", "node a { states = (x y); states = (x z); }", "found 'states' twice"),
        ("g.bif", "variable a { type discrete [ 2 ] { x, y }; type discrete [ 2 ] { x, z }; }", "found 'type'; expected type, once"),
        ("g.net", "node a { }", "node 'a': found no states"),
        ("g.net", "node a { states = (x y)", "found its end; expected ';' before"),
        ("g.xmlbif", '<BIF><NETWORK><VARIABLE TYPE="utility"><NAME>a</NAME></VARIABLE></NETWORK></BIF>', "type 'utility'; expected one name and nature"),
        ("g.xmlbif", "<BIF><NETWORK/></BIF>", "found no variables"),
        ("g.xdsl", "<smile><nodes/></smile>", "found no variables; expected a file of XDSL, with <cpt>"),
        ("g.xdsl", '<smile><nodes><decision id="a"/></nodes></smile>', "found a node 'a' of kind 'decision'; expected chance nodes"),
        ("g.xdsl", "<smile><nodes><cpt/></nodes></smile>", "found a node '' of kind 'cpt'; expected chance nodes with an id"),
        ("g.xdsl", '<smile><nodes><cpt id="a"><state id="x"/><parents>b</parents></cpt></nodes></smile>', "probabilities of 'a': found 'b', no variable"),
        ("g.xdsl", '<smile><nodes><cpt id="a"><state id="x"/></cpt><cpt id="a"/></nodes></smile>', "found variable 'a' twice"),
        ("g.xdsl", '<smile><nodes><cpt id="a"><state id="x"/></cpt></nodes><dynamic numslices="3"/></smile>', "found nodes that repeat over time"),
    ],
)  # fmt: skip
def test_what_is_refused(name: str, text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(GraphError) as caught:
        read_file(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert says in str(caught.value)


def test_braces_in_texts_and_comments_are_no_end_of_a_block(tmp_path: Path) -> None:
    (tmp_path / "g.bif").write_text(
        'variable a { type discrete [ 2 ] { "50%", "}" }; property "}" ; } variable b { type discrete [ 2 ] { x, y }; }\n'
        'probability ( b | a ) { // }\n ("50%") 0.1, 0.9; /* } */ ( "}" ) 0.5, 0.5; }\n'
    )
    (tmp_path / "g.net").write_text(
        'net { name = "}"; % }\n } node a { states = ("x" "\\"}"); } node b { states = (// /*); }\n'
        "potential ( b | a ) { data = ( % }\n (1 0) (0 1)); }\n"
    )
    for name, levels in (("g.bif", ["50%", "}"]), ("g.net", ["x", '"}'])):
        drawn = read_file(tmp_path / name)
        assert isinstance(drawn, Drawn)
        assert [str(edge) for edge in drawn.edges] == ["a --> b"]
        assert drawn.nodes["a"]["levels"] == levels
