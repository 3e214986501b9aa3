graph [
  directed 1
  node [
    id 0
    label "age"
    x 0.0
    viz [
      size 3
    ]
  ]
  node [
    id 1
    label "sick"
    x 2.0
    viz [
      size 3
    ]
  ]
  node [
    id 2
    label "fever"
    x 3.0
    viz [
      size 3
    ]
  ]
  node [
    id 3
    label "pulse"
    x 4.0
    viz [
      size 3
    ]
  ]
  node [
    id 4
    label "smoker"
    x 1.0
    viz [
      size 3
    ]
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
