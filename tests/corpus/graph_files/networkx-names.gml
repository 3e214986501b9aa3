graph [
  directed 1
  node [
    id 0
    label "sick"
  ]
  node [
    id 1
    label "white cells"
  ]
  node [
    id 2
    label "a &#34;quoted&#34;"
  ]
  node [
    id 3
    label "&#233;"
  ]
  node [
    id 4
    label "x:y"
  ]
  node [
    id 5
    label "back\slash"
  ]
  edge [
    source 0
    target 1
  ]
  edge [
    source 0
    target 2
  ]
  edge [
    source 0
    target 3
  ]
  edge [
    source 0
    target 4
  ]
  edge [
    source 0
    target 5
  ]
]
