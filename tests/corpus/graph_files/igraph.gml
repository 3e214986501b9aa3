Creator "igraph version 1.0.0 Fri Nov 27 12:03:07 2026"
Version 1
graph
[
  directed 1
  node
  [
    id 0
    name "age"
  ]
  node
  [
    id 1
    name "smoker"
  ]
  node
  [
    id 2
    name "sick"
  ]
  node
  [
    id 3
    name "fever"
  ]
  node
  [
    id 4
    name "pulse"
  ]
  edge
  [
    source 0
    target 2
  ]
  edge
  [
    source 2
    target 3
  ]
  edge
  [
    source 2
    target 4
  ]
  edge
  [
    source 1
    target 4
  ]
]
