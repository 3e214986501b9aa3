graph [
  directed 1
  node [
    id 0
    label "sick"
    observed "yes"
    penwidth 2
  ]
  node [
    id 1
    label "pulse"
    observed "yes"
    penwidth 2
  ]
  node [
    id 2
    label "age"
    observed "yes"
  ]
  node [
    id 3
    label "smoker"
    observed "yes"
    effectmodifier 1
  ]
  edge [
    source 0
    target 1
    penwidth 2
  ]
  edge [
    source 2
    target 0
  ]
  edge [
    source 2
    target 1
  ]
  edge [
    source 3
    target 1
  ]
]
