Creator "igraph version 1.0.0 Fri Nov 27 12:03:07 2026"
Version 1
graph
[
  directed 1
  node
  [
    id 0
    name "white cells"
  ]
  node
  [
    id 1
    name "a &quot;quoted&quot;"
  ]
  node
  [
    id 2
    name "sick"
  ]
  node
  [
    id 3
    name "é"
  ]
  edge
  [
    source 2
    target 0
  ]
  edge
  [
    source 2
    target 1
  ]
  edge
  [
    source 2
    target 3
  ]
]
