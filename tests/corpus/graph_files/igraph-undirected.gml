Creator "igraph version 1.0.0 Fri Nov 27 12:03:07 2026"
Version 1
graph
[
  directed 0
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
    source 2
    target 0
  ]
  edge
  [
    source 3
    target 2
  ]
  edge
  [
    source 4
    target 2
  ]
  edge
  [
    source 4
    target 1
  ]
]
