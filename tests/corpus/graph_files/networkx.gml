graph [
  directed 1
  node [
    id 0
    label "age"
  ]
  node [
    id 1
    label "sick"
  ]
  node [
    id 2
    label "fever"
  ]
  node [
    id 3
    label "pulse"
  ]
  node [
    id 4
    label "smoker"
  ]
  edge [
    source 0
    target 1
  ]
  edge [
    source 1
    target 2
  ]
  edge [
    source 1
    target 3
  ]
  edge [
    source 4
    target 3
  ]
]
